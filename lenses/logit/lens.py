"""The logit lens: each layer's state, read by the model's own last step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lenses.logit.grid import CONTRIBUTIONS, STATES, Grid, named
from lenses.logit.reading import LOGIT, checked_lens, heading, said_of, translator_of
from lenses.translators.translator import Translator
from lenses.vocabulary import statistics
from workbench.errors import ModelError, SettingError
from workbench.instrument import Citation, Measured, Reading
from workbench.models.captures import Captures, Read
from workbench.models.positions import Positions, checked_positions
from workbench.models.protocol import Model
from workbench.models.sites import Site, expand_sites

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["LogitLens"]

RANGES = MappingProxyType(
    {
        **dict.fromkeys(("entropy", "kl", "norm", "settling_layer"), (0.0, math.inf)),
        "js": (0.0, math.log(2)),
        **dict.fromkeys(("top_logprob", "target_logprob", "foil_logprob"), (-math.inf, 0.0)),
        **dict.fromkeys(("target_rank", "foil_rank"), (1.0, math.inf)),
    }
)


@dataclass(frozen=True)
class LogitLens(Reading):
    """Logit lens: lens_l = T(W_U norm(h_l) + b_U), T the family's own soft-cap or scale.

    The norm's statistics are taken anew at each layer. Beside the top tokens: entropy,
    KL(final || layer), Jensen-Shannon divergence, log-probability and rank of a target and a foil,
    the settling layer (the first from which on the top token stays the model's own), and the layer
    of the target's highest probability, against its final one.

    For `attn_out` and `mlp_out` a norm taken anew makes a negligible output look confident: their
    `norm` is given to judge them by, and entropy, KL and JS are left out.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".

    With `lens` a tuned or a Jacobian lens (`TunedLens`, `JacobianLens`) translates each state before
    the readout, and all numbers but `norm`, which stays the state's own, are of the translated ones.

    Attributes:
        top_k: how many top tokens, at most the vocabulary.
        sites: of resid_post (with the embedding as layer 0), resid_pre, resid_mid, attn_out,
            mlp_out.
        positions: "all", "last", indices, a slice, or a role such as "last_subject".
        divergences: whether to take KL and Jensen-Shannon; a run is a little cheaper without.
        lens: logit, or the file of a tuned or Jacobian lens of this model (in Python the lens itself,
            on a page the name of one that it offers); it reads resid_post alone.

    Result axes: site, layer, place, k. Variables: top_id, top_logprob (site, layer, place, k);
    entropy, kl, js, norm, target_logprob, target_rank, foil_logprob, foil_rank
    (site, layer, place); settling_layer (-1 for contributions and where it never settles),
    target_peak_layer, target_peak_logprob (site, place);
    target_id, foil_id (place; -1 for none); vocabulary (token_id). NaN (-1 for ids) where a site
    has no such layer.

    >>> LogitLens(top_k=3)(model, "The capital of France is").plot()  # doctest: +SKIP
    """

    top_k: int = 5
    sites: Sequence[str] = ("resid_post",)
    positions: Positions = "all"
    divergences: bool = True
    lens: str | Translator = LOGIT

    name: ClassVar[str] = "logit_lens"
    title: ClassVar[str] = "Logit lens"
    citation: ClassVar[Citation] = Citation(
        "Intermediate states of {model} were read in the vocabulary with the logit lens "
        "(nostalgebraist, 2020; {settings})",
        "@misc{nostalgebraist2020logitlens,\n"
        "  title  = {interpreting {GPT}: the logit lens},\n"
        "  author = {nostalgebraist},\n"
        "  year   = {2020},\n"
        "  note   = {LessWrong}\n"
        "}",
    )
    files: ClassVar[tuple[str, ...]] = ("lens",)
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = RANGES

    def __post_init__(self) -> None:
        if isinstance(self.sites, str):
            object.__setattr__(self, "sites", tuple(self.sites.split(",")))
        object.__setattr__(self, "positions", checked_positions(self.positions))
        if len(set(self.sites)) < len(self.sites):
            raise SettingError(f"logit_lens: sites {list(self.sites)}: one is named twice")
        unknown = [site for site in self.sites if site not in STATES + CONTRIBUTIONS]
        if unknown or not self.sites:
            expected = ", ".join(STATES + CONTRIBUTIONS)
            raise SettingError(
                f"logit_lens: sites {unknown or 'missing'}: expected some of {expected}"
            )
        if type(self.top_k) is not int or self.top_k < 1:
            raise SettingError(
                f"logit_lens: top_k is {self.top_k!r}: expected a whole number, at least 1"
            )

        object.__setattr__(self, "lens", checked_lens(self.lens))
        said = said_of(self.lens)
        if said is not None and set(self.sites) != {Translator.site}:
            raise SettingError(
                f"logit_lens: {said.title} was fitted on {Translator.site}: it cannot read sites "
                f"{', '.join(s for s in self.sites if s != Translator.site)}; set "
                f"sites={Translator.site}"
            )

    def settings(self) -> dict[str, Any]:
        """The settings as plain data; a fitted lens as its kind, file and hash."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {"lens": str(said_of(self.lens) or LOGIT)}

    def prepare(self, model: Model) -> None:
        """Refuse a top_k larger than the vocabulary, and a lens of another model."""
        if (lens := translator_of(self.lens)) is not None:
            lens.require(model)
        if self.top_k > model.vocab_size:
            raise SettingError(
                f"logit_lens: top_k is {self.top_k}: the vocabulary has {model.vocab_size}"
            )

    def remarks(self, model: Model) -> Sequence[str]:
        """That a lens reads a view whose weights are changed, for which it was not fitted."""
        lens = translator_of(self.lens)
        if lens is None or lens.made.model["weights"] == model.provenance()["weights"]:
            return []
        return ["the lens was fitted on the model without its changes of weights"]

    def reads(self, model: Model) -> Read:
        """The sites at every layer, and the state after the last block."""
        return Read((*self.sites, ("resid_post", model.n_layers)), self.positions)

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Layers 0..L and k = 1.. ."""
        return {
            "site": list(self.sites),
            "layer": list(range(model.n_layers + 1)),
            "k": list(range(1, self.top_k + 1)),
        }

    def measure(self, captures: Captures) -> Measured:
        """Stream every captured state through the readout."""
        n_layers = max(captures.layers("resid_post"))
        last = Site("resid_post", n_layers)
        sites = tuple(dict.fromkeys((*expand_sites(self.sites, n_layers), last)))
        targets = {
            role: captures.batch.targets(role)[captures.places.row] for role in ("target", "foil")
        }
        found = statistics(
            [self._translated(site, captures[site]) for site in sites],
            captures[last],
            captures.readout,
            k=self.top_k,
            followed=torch.stack(list(targets.values())),
            compare=self.divergences,
        )
        _require_finite(found.entropy, sites, captures)
        norms = torch.stack([captures[site].float().norm(dim=-1) for site in sites])
        grid = Grid(tuple(self.sites), n_layers, sites)
        settled = settling_layer(grid(found.top_id)[..., 0], found.top_id[sites.index(last), :, 0])
        for index, name in enumerate(self.sites):
            settled[index] = -1 if name in CONTRIBUTIONS else settled[index]
        return named(found, norms, settled, targets, grid)

    def _translated(self, site: Site, states: Tensor) -> Tensor:
        """The states as the lens has them; those after the last block themselves."""
        lens = translator_of(self.lens)
        return states if lens is None else lens(site.layer, states)

    @classmethod
    def heading(cls, data: xr.Dataset) -> str:
        """The title, or that of the fitted lens that the result was read with."""
        return heading(data) or cls.title

    @classmethod
    def source(cls, settings: Mapping[str, Any]) -> Citation:
        """The source of the lens that was used."""
        said = said_of(str(settings.get("lens", LOGIT)))
        kinds = {kind.name: kind.citation for kind in Translator.__subclasses__()}
        return cls.citation if said is None else kinds[said.kind]

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, site, layer, position); see the command line's documentation."""
        from lenses.logit.rows import rows

        return rows(data)

    @classmethod
    def figure(
        cls,
        data: xr.Dataset,
        *,
        theme: str = "light",
        prompt: str | int | None = None,
        selected: tuple[int, int] | None = None,
        **options: Any,
    ) -> go.Figure:
        """Layer by position, with the top token in each cell."""
        from lenses.logit.figures import figure

        return figure(data, theme=theme, prompt=prompt, selected=selected, **options)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """Probability by position, the best tokens of one, their probabilities, entropy and KL."""
        from lenses.logit.panels import panels

        return panels(data, prompt=prompt, position=position, site=site)

    @classmethod
    def facts(
        cls,
        data: xr.Dataset,
        *,
        layer: int,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> list[tuple[str, str]]:
        """Target and foil, the settling layer, entropy and divergences, the norm."""
        from lenses.logit.facts import facts

        return facts(data, layer=layer, prompt=prompt, position=position, site=site)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """When predictions form, how sure they are, and which prompts stand out."""
        from lenses.logit.report import section

        return section(rows, cls.ranges)


def _require_finite(entropy: Tensor, sites: Sequence[Site], captures: Captures) -> None:
    """Refuse logits that are not numbers: ranks and layers taken from them would look like results.

    Raises:
        ModelError: names the first site, layer, position and prompt.
    """
    bad = (~entropy.isfinite()).nonzero()
    if not len(bad):
        return
    site, place = sites[int(bad[0, 0])], int(bad[0, 1])
    prompt = captures.batch.prompts[int(captures.places.row[place])].text[:40]
    raise ModelError(
        f"the logits of {site}, position {int(captures.places.position[place])} of {prompt!r} are not "
        "finite: the weights or the dtype overflow; try float32"
    )


def settling_layer(top: Tensor, final: Tensor) -> Tensor:
    """First layer from which on the top token stays the model's own.

    Args:
        top: [site, layer, place] token ids.
        final: [place] token ids after the last block.

    Returns:
        [site, place] layers; -1 where the site's last layer has another top token.
    """
    kept = (top == final).flip(1).long().cumprod(dim=1).sum(dim=1)
    return torch.where(kept > 0, top.shape[1] - kept, -1)

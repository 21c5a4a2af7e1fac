"""Attribution patching: what patching each cell would do, by a gradient, beside what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from probes.causal.metrics import UNITS
from probes.circuits.exact import SAME, exact, mean_and_error, rank_correlation
from probes.circuits.patching import attributed
from probes.circuits.settings import Approximating
from probes.settings import sites_of
from workbench.errors import SettingError, UnsupportedError
from workbench.instrument import Citation, Measured, Named
from workbench.models.batch import Batch, Places
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["AttributionPatch"]

SITES = ("resid_post", "mlp_out", "attn_out", "z")
APPROXIMATE = (
    "Effects are a first-order approximation of what patching does, not measured by patching: see their rank "
    "correlation with exact effects (exact=true) before a cell is taken for one that matters"
)


@dataclass(frozen=True)
class AttributionPatch(Approximating):
    """Attribution patching: the approximate effect of patching every cell, from one gradient.

    Of a site's value h at a position, h_base in the run that is patched into and h_source in the one whose
    value is put in, the change of the metric is to first order

        effect = grad_h metric(base) . (h_source - h_base)

    for all layers and positions at once: two forward passes and one backward pass. Denoising puts clean
    values into the corrupted run, noising corrupted ones into the clean run.

    With `steps`, the gradient at each site is the mean over runs that start from embeddings on the straight
    way between the two sides' (as in EAP-IG; a Gauss-Legendre rule of so many points): one forward and one
    backward a step, for the whole grid. Integrating at each site by itself would cost that for every layer.
    It is complete at the embedding alone: there the effects of all positions sum to the total effect. It
    has no direction: noising gives denoising's numbers with the other sign.

    Always an approximation. It fails most where the metric bends between the two runs: at early states,
    behind saturated norms and attention, and for probabilities, which are refused. `exact` patches every
    cell besides and gives Spearman's rank correlation for each prompt and site, over the cells whose effect
    is not 0 by construction (those before the corruption, and in the last block those that are not read).
    It is NaN where there are fewer than 3, or where one side's effects are all the same but for rounding.

    Source: Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale"; Kramar et al. 2024,
    arXiv 2403.00745; for the steps Hanna et al. 2024, arXiv 2403.17806.

    Attributes:
        metric: logprob, logit_difference or kl; auto: logit_difference where every prompt has a foil, else
            logprob.
        direction: denoising or noising.
        corruption: noise (on the subject's token embeddings), replace (by each prompt's corrupted text), or
            auto: replace where every prompt has one, else noise.
        steps: points of the integral along the embeddings; 0 for the gradient at the base run alone.
        noise: standard deviations of the noise, in units of noise_std.
        noise_std: None for the standard deviation of the subjects' embeddings over all prompts.
        samples: how many draws of noise.
        seed: of the draws.
        sites: some of resid_post, mlp_out, attn_out and z (single heads).
        exact: whether every cell is patched too.

    Result axes: site, layer (0..L), place, head. Variables, in the metric's unit: effect and stderr (site,
    layer, place), over the samples, NaN of a single one; with z head_effect, head_stderr (layer, head,
    place); clean and corrupted (place), the two runs' mean scores. With `exact`: exact_effect,
    exact_stderr, exact_head_effect, exact_head_stderr, rank_correlation (site, place), which is the same at
    all places of a prompt, and head_rank_correlation (place). NaN where there is no such cell. A target of
    several tokens stands behind both texts; its own positions are not in the grid.

    >>> AttributionPatch(exact=True)(model, prompts).plot()  # doctest: +SKIP
    """

    sites: Sequence[str] = ("resid_post", "mlp_out", "attn_out")
    exact: bool = False

    name: ClassVar[str] = "attribution_patch"
    title: ClassVar[str] = "Attribution patching"
    long_targets: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    most_prompts: ClassVar[int | None] = 1
    citation: ClassVar[Citation] = Citation(
        "Effects of patching activations of {model} were approximated to first order by attribution patching "
        "(Nanda, 2023; {settings})",
        "@misc{nanda2023attribution,\n"
        "  title  = {Attribution Patching: Activation Patching At Industrial Scale},\n"
        "  author = {Nanda, Neel},\n"
        "  year   = {2023},\n"
        "  url    = {https://www.neelnanda.io/mechanistic-interpretability/attribution-patching}\n"
        "}",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sites", sites_of(self.name, self.sites, SITES))
        if type(self.exact) is not bool:
            raise SettingError(f"{self.name}: exact is {self.exact!r}: expected true or false")

    def prepare(self, model: Model) -> None:
        """Refuse a model whose tokens see later ones, or that has two stacks."""
        if not model.causal or len(model.stacks) > 1:
            raise UnsupportedError(
                f"{self.name}: {model.name} is no causal decoder, whose answer stands behind its prompt: "
                "use one, such as GPT-2 or Llama"
            )

    def remarks(self, model: Model) -> Sequence[str]:
        """That it is an approximation."""
        return [APPROXIMATE]

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Sites of the grid, layers 0..L and heads from 0."""
        return {
            "site": self._grid,
            "layer": list(range(model.n_layers + 1)),
            "head": list(range(model.n_heads)),
        }

    @property
    def _grid(self) -> list[str]:
        return [name for name in self.sites if name != "z"]

    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """Prompt by prompt; each exact grid says how far it is."""
        found = []
        for number, prompt in enumerate(batch.prompts):

            def part(done: float, number: int = number) -> None:
                pace((number + done) / len(batch))

            found.append(self._of_prompt(model, prompt, part))
        unit = UNITS[self._scored]
        return batch.places("all"), {
            name: Named(
                _dims(name),
                torch.cat([one[name] for one in found], -1),
                "correlation" if "correlation" in name else unit,
            )
            for name in found[0]
        }

    def _of_prompt(
        self, model: Model, prompt: EncodedPrompt, pace: Callable[[float], None]
    ) -> dict[str, Tensor]:
        pair, positions = self.pair(model, prompt), len(prompt)
        patched = attributed(pair, self.direction, self.sites, self.steps)
        near = {name: values[:, :, :positions] for name, values in patched.effects.items()}
        found = self._summed(near, "")
        ends = (patched.source, patched.base)
        clean, corrupted = ends if self.direction == "denoising" else ends[::-1]
        found["clean"] = clean.mean().expand(positions)
        found["corrupted"] = corrupted.mean().expand(positions)
        if self.exact:
            true = exact(pair, self.direction, self.sites, positions, pace)
            found |= self._summed(true, "exact_")
            found |= self._correlations(near, true, positions)
        return found

    def _summed(self, samples: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """Means and standard errors by variable, of effects by site."""
        found: dict[str, Tensor] = {}
        both = {name: mean_and_error(values, 1) for name, values in samples.items()}
        for i, what in enumerate(("effect", "stderr")):
            if self._grid:
                grid = torch.stack([_from_embedding(both[name][i], name) for name in self._grid])
                found[prefix + what] = grid
            if "z" in both:
                heads = _from_embedding(both["z"][i], "z").permute(0, 2, 1)
                found[f"{prefix}head_{what}"] = heads
        return found

    def _correlations(
        self, near: Mapping[str, Tensor], true: Mapping[str, Tensor], positions: int
    ) -> dict[str, Tensor]:
        ranks = {}
        for name, values in near.items():
            mean = true[name].mean(1)
            # What is 0 in both cannot act; a gradient of 0 where patching acts is an error to count.
            acts = mean.abs() > SAME * mean.abs().max()
            free = (values != 0).any(1) | acts
            ranks[name] = rank_correlation(values.mean(1), mean, free)
        found = {}
        if self._grid:
            grid = torch.tensor([ranks[name] for name in self._grid], dtype=torch.float64)
            found["rank_correlation"] = grid[:, None].expand(-1, positions)
        if "z" in ranks:
            found["head_rank_correlation"] = torch.tensor(ranks["z"], dtype=torch.float64).expand(
                positions
            )
        return found

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, site, layer, position), and of heads one each."""
        from probes.circuits.rows import rows

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
        """Approximate and, where measured, exact effects side by side on one colour scale."""
        from probes.circuits.figures import figure

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
        """Each site's effects by position; heads at one position."""
        from probes.circuits.panels import panels

        return panels(data, prompt=prompt, position=position)

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
        """Of each site the approximate effect at the cell, and the exact one where it was measured."""
        from probes.circuits.panels import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Mean rank correlations where there are exact effects, and the largest effects by layer."""
        from probes.circuits.report import section

        return section(rows)


def _dims(name: str) -> tuple[str, ...]:
    if name == "rank_correlation":
        return ("site", "place")
    if name in ("clean", "corrupted", "head_rank_correlation"):
        return ("place",)
    return ("layer", "head", "place") if "head_" in name else ("site", "layer", "place")


def _from_embedding(values: Tensor, name: str) -> Tensor:
    """A site's values [layers, ...] on layers 0..L: NaN at the embedding, where only states are."""
    if name == "resid_post":
        return values
    return torch.cat([torch.full_like(values[:1], torch.nan), values])

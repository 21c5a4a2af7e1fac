"""Particles: how ordered, clustered and spread a prompt's states are, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from probes.particles.controls import LARGEST, few_twins, reasons_without
from probes.particles.corpus import BUNDLED, Corpus, LayerMeans
from probes.particles.measured import How, norm_ratio
from probes.particles.quantities import QUANTITIES
from probes.particles.states import SINKS, Drop
from probes.particles.views import Views
from workbench.errors import PromptError, SettingError, UnsupportedError
from workbench.instrument import Citation, Measured, Reading
from workbench.models.captures import Captures, Read
from workbench.models.positions import Positions, checked_positions, resolve_positions
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt
from workbench.store.activations import Store

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["Particles"]

WHO = "particles"
COLDEST = 700  # beta: e^700 is a float64 still
CHOICES = ("raw", "centred", "random", "shuffled")


@dataclass(frozen=True)
class Particles(Reading):
    """Tokens as particles on the sphere: order and clusters of a model's states, beside controls.

    The states resid_post of a prompt's tokens are taken to unit length, layer by layer, and described as
    a set: do they point one way (mean cosine, order parameter), in how many groups are they
    (participation ratio, Vendi score, components), how near is the nearest other, how far are they from
    one vector, and how far did the layer move them. The last state is that before the final norm.

    First those tokens are left out that decide every mean: a special token that opens the prompt, and
    at each layer tokens whose norm is above 10 times the median (their number is said). `centred` takes
    off each layer's mean over a held-out corpus, since all states of a layer share a direction that says
    nothing of the prompt; the prompt's own mean would make its order 0 by construction.

    Order by itself says little: random weights alone order tokens with depth. So the same is measured of
    twins that were never trained, and of the prompt with its tokens shuffled, in passes of their own;
    each twin is centred on its own mean. Of n random directions r is about 1/sqrt(n), which makes short
    prompts look ordered: read the mean cosine first, of which chance gives 0.

    Source: Geshkovski, Letrouit, Polyanskiy and Rigollet 2025, "A mathematical perspective on
    Transformers", arXiv 2312.10794; rank residuals of Dong et al. 2021, arXiv 2103.03404; Vendi score of
    Friedman and Dieng 2023, arXiv 2210.02410.

    Attributes:
        drop: "default" leaves out special tokens that open a prompt, and sinks; "none" leaves out none.
        corpus: a prompt file whose mean is taken off, of at least 1,000 tokens; bundled sentences where
            empty.
        beta: inverse temperature of the interaction energy, at most 700.
        views: some of raw, centred, random (twins) and shuffled; all that can be had where empty, and
            the result says what could not be. Twins of more than 10^9 parameters are drawn only where
            they are named here.
        draws: how many twins, and how many shufflings of each prompt.
        seed: of the first twin and shuffling.
        expensive: whether to compute the Vendi score, which costs min(n, d)^3 a prompt and layer, and the
            intrinsic dimension, in float64.
        positions: which tokens are particles.

    Result axes: prompt, view, draw, layer. Views are raw, centred, random, random_centred, shuffled and
    shuffled_centred. Variables by (prompt, view, draw, layer): mean_cosine, order_parameter,
    order_debiased, participation_ratio, vendi, components, concentration (mean cosine with the nearest
    other token), coinciding (share of pairs above .999), energy, rank_residual (relative Frobenius),
    composite_residual, intrinsic_dimension (TwoNN), step and turn (of the layer that ends here),
    top_dimensions_energy and top_dimensions_cosine (what the 3 largest dimensions carry), tokens and
    sinks (how many count, and are left out by their norm); by (prompt, view, draw) straightness. By
    (layer, place) norm_ratio: a token's norm over the median of its prompt. NaN is what does not exist:
    draws of a view that has fewer, and numbers of a set where fewer than two tokens count.

    >>> Particles()(model, "The Eiffel Tower is located in the city of").plot()  # doctest: +SKIP
    """

    drop: Drop = "default"
    corpus: str = BUNDLED
    beta: float = 1.0
    views: str | Sequence[str] = ()
    draws: int = 3
    seed: int = 0
    expensive: bool = True
    positions: Positions = "all"

    name: ClassVar[str] = WHO
    title: ClassVar[str] = "Particles"
    costly: ClassVar[bool] = True
    long_targets: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("corpus",)
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {name: (one.low, one.high) for name, one in QUANTITIES.items()}
    )
    citation: ClassVar[Citation] = Citation(
        "Tokens of {model} were described as interacting particles, layer by layer, beside untrained "
        "twins and shuffled tokens (Geshkovski et al., 2025; {settings})",
        "@article{geshkovski2025mathematical,\n"
        "  title   = {A mathematical perspective on {Transformers}},\n"
        "  author  = {Geshkovski, Borjan and Letrouit, Cyril and Polyanskiy, Yury and Rigollet,\n"
        "             Philippe},\n"
        "  journal = {Bulletin of the American Mathematical Society},\n"
        "  year    = {2025},\n"
        "  note    = {arXiv:2312.10794}\n"
        "}",
    )
    _found: ClassVar[Views | None] = None  # an instance's own once it is settled

    def __post_init__(self) -> None:
        if self.drop is None:  # as settings read "none" from a command line
            object.__setattr__(self, "drop", "none")
        if self.views is None or not isinstance(self.corpus, str):
            raise SettingError(
                f"{WHO}: views and corpus are left empty for their defaults, not none"
            )
        views = (self.views,) if isinstance(self.views, str) else tuple(self.views)
        object.__setattr__(self, "views", tuple(view for view in views if view))
        object.__setattr__(self, "positions", checked_positions(self.positions))
        unknown = [view for view in self.views if view not in CHOICES]
        if unknown:
            raise SettingError(f"{WHO}: views {unknown}: expected some of {', '.join(CHOICES)}")
        if self.drop not in SINKS:
            raise SettingError(f"{WHO}: drop is {self.drop!r}: expected none or default")
        if type(self.draws) is not int or self.draws < 1:
            raise SettingError(f"{WHO}: draws is {self.draws!r}: expected a number of at least 1")
        if type(self.seed) is not int or self.seed < 0:
            raise SettingError(f"{WHO}: seed is {self.seed!r}: expected a whole number from 0")
        if type(self.beta) not in (int, float) or not 0 < self.beta <= COLDEST:
            raise SettingError(
                f"{WHO}: beta is {self.beta!r}: expected a number above 0, at most {COLDEST}, above "
                "which energies are beyond float64"
            )
        if type(self.expensive) is not bool:
            raise SettingError(f"{WHO}: expensive is {self.expensive!r}: expected true or false")

    # --- what is measured ------------------------------------------------------------------

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """With the views that can be had of the model, and a corpus that holds none of the prompts.

        Raises:
            UnsupportedError: a model of two stacks, or a view that is asked for and cannot be had.
            SettingError, PromptError: a corpus that is too short, is missing, or is measured itself.
        """
        if self._found is not None:
            if self._found.means is not None:
                self._found.means.forget()
            return self
        made = copy(self)
        object.__setattr__(made, "_found", self._views(model))
        if made._settled.means is not None:
            made._settled.means.corpus.require_held_out(prompts)
        return made

    def _views(self, model: Model) -> Views:
        if not isinstance(model, Store) and len(model.stacks) > 1:
            raise UnsupportedError(
                f"{WHO}: the decoder of {model.name} reads its start token alone: expected a model of one "
                "stack"
            )
        lacking = self._lacking(model)
        wanted = [view for view in self.views or CHOICES if view not in lacking]
        means = LayerMeans(Corpus.read(self.corpus), self.drop) if "centred" in wanted else None
        twins = self.draws if self.views else self._twins(model, wanted)
        return Views(
            how=How(model.tokens, self.drop, self.beta, self.expensive),
            raw="raw" in wanted or means is None,
            means=means,
            twins=twins if "random" in wanted else 0,
            shuffles=self.draws if "shuffled" in wanted else 0,
            seed=self.seed,
            positions=self.positions,
        )

    def _lacking(self, model: Model) -> Mapping[str, str]:
        """The views that are left out, and why.

        Raises:
            UnsupportedError: one of them is asked for.
        """
        reasons = reasons_without(model, self.seed)
        for view in self.views:
            if view in reasons:
                raise UnsupportedError(f"{WHO}: no view {view!r}: {reasons[view]}")
        return reasons

    def _twins(self, model: Model, wanted: Sequence[str]) -> int:
        return few_twins(model, self.draws) if "random" in wanted else 0

    @property
    def _settled(self) -> Views:
        if self._found is None:
            raise SettingError(f"{WHO}: not settled on a model: expected settled(model, prompts)")
        return self._found

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt of which no token is read."""
        if not resolve_positions(self.positions, prompt):
            raise PromptError(
                f"{WHO}: positions {self.positions!r} select no token of {prompt.text[:40]!r}"
            )

    def remarks(self, model: Model) -> Sequence[str]:
        """What was taken off, which controls there are and which there are not."""
        lacking = self._lacking(model)
        said = [f"no view {view}: {why}" for view, why in lacking.items()]
        found = self._found or self._views(model)
        if found.means is not None:
            said.append(found.means.said(model))
        if not self.views and "random" not in lacking and found.twins < self.draws:
            said.append(
                f"{found.twins or 'no'} of {self.draws} untrained twins: all together they may hold "
                f"{LARGEST:,} parameters, and one of {model.name} holds {model.n_parameters:,}; name "
                "random among views for all of them"
            )
        return said

    def reads(self, model: Model) -> Read:
        """The state after every block, and the embedding."""
        return Read("resid_post", self.positions)

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Views, draws from 0, and layers 0..L."""
        found = self._settled
        return {
            "view": found.names,
            "draw": list(range(found.draws)),
            "layer": list(range(model.n_layers + 1)),
        }

    def measure(self, captures: Captures) -> Measured:
        """The raw view alone: the others take passes of the model."""
        return {**self._settled.raw_alone(captures), "norm_ratio": norm_ratio(captures)}

    def measure_beside(self, captures: Captures, model: Model) -> Measured:
        """All views."""
        return {**self._settled.of(captures, model), "norm_ratio": norm_ratio(captures)}

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """Those of twins and shufflings; the pass over the corpus, which is kept, is not counted."""
        found = self._settled
        return (found.twins + found.shuffles) * sum(map(len, prompts)) * model.n_layers

    # --- what is shown ---------------------------------------------------------------------

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, layer, view); see `probes.particles.rows`."""
        from probes.particles.rows import rows

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
        """Mean cosine and order parameter along the layers, raw and centred, beside the controls."""
        from probes.particles.figures import figure

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
        """Mean cosine beside its controls, clusters, and steps; of the whole prompt."""
        from probes.particles.panels import panels

        return panels(data, prompt=prompt)

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
        """Order, clusters and steps of the prompt at a layer, and the token's norm."""
        from probes.particles.facts import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """What differs from the twin and from shuffled tokens over the prompts, and what does not."""
        from probes.particles.report import section

        return section(rows)

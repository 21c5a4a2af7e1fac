"""Spins: how much the mean direction of the tokens differs from prompt to prompt, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from probes.particles.controlled import Controlled
from probes.particles.ensemble import empty, merged, moments, spins, susceptibility_of
from probes.particles.views import CENTRED
from workbench.instrument import Citation, Measured, Named, SetLevel, State
from workbench.models.captures import Captures
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["Spins"]


@dataclass(frozen=True)
class Spins(Controlled, SetLevel):
    """Tokens as vector spins: magnetisation, its susceptibility over the prompts, and energy, by layer.

    The tokens of prompt b at a layer, taken to unit length, are spins u_i; their mean is the magnetisation
    m_b = sum_i u_i / n_b. Over the ensemble of the B prompts that are measured together,

        susceptibility = sum_b n_b ||m_b - M||^2 / (B - 1),  M = sum_b n_b m_b / sum_b n_b,

    which with equal n_b is n times the unbiased variance of m, summed over dimensions: the fluctuation form
    of a susceptibility at inverse temperature 1. Of independent random directions it is 1 in expectation,
    whatever n_b; above 1 tokens of a prompt share directions that other prompts do not have (up to about n,
    where each prompt's tokens coincide); below 1 prompts agree more than their tokens do. It is of an
    ensemble of texts, not of thermal fluctuations, and depends on which texts those are.

    Views and controls are those of `particles`: raw, less each layer's mean over a held-out corpus, untrained
    twins, and shuffled tokens.

    Source: Stanley 1968, "Dependence of critical properties on dimensionality of spins", Physical Review
    Letters 20, 589; Kac 1968 for the energy of a spin when every spin couples to every other.

    Attributes:
        drop: "default" leaves out special tokens that open a prompt, and sinks; "none" leaves out none.
        corpus: a prompt file whose mean is taken off, of at least 1,000 tokens; bundled sentences where
            empty.
        views: some of raw, centred, random (twins) and shuffled; all that can be had where empty, and
            the result says what could not be.
        draws: how many twins, and how many shufflings of each prompt.
        seed: of the first twin and shuffling.
        positions: which tokens are spins.

    Result axes: view, draw, layer. Variables: susceptibility; common_magnetisation, the length ||M|| of the
    mean over all tokens of all prompts; magnetisation, the mean over prompts of ||m_b||, which is their order
    parameter; spin_energy, the mean of -||m_b||^2 / 2; prompts with tokens that count, and tokens of all of
    them. NaN where there are fewer than two prompts, and for draws of a view that has fewer.

    >>> Spins()(model, prompts).plot()  # doctest: +SKIP
    """

    name: ClassVar[str] = "spins"
    title: ClassVar[str] = "Spins"
    needs_set: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {
            "susceptibility": (0.0, math.inf),
            "common_magnetisation": (0.0, 1.0),
            "magnetisation": (0.0, 1.0),
            "spin_energy": (-0.5, 0.0),
        }
    )
    citation: ClassVar[Citation] = Citation(
        "Tokens of {model} were taken as vector spins, and the susceptibility of their magnetisation over "
        "the prompts measured layer by layer (Stanley, 1968; {settings})",
        "@article{stanley1968dependence,\n"
        "  title   = {Dependence of Critical Properties on Dimensionality of Spins},\n"
        "  author  = {Stanley, H. Eugene},\n"
        "  journal = {Physical Review Letters},\n"
        "  volume  = {20},\n"
        "  pages   = {589--592},\n"
        "  year    = {1968}\n"
        "}",
    )

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Views, draws from 0, and layers 0..L."""
        found = self._settled
        return {
            "view": found.names,
            "draw": list(range(found.draws)),
            "layer": list(range(model.n_layers + 1)),
        }

    def start(self, model: Model) -> State:
        """No prompts."""
        found = self._settled
        return empty(len(found.names), found.draws, model.n_layers + 1, d=model.d_model)

    def update(self, state: State, captures: Captures) -> State:
        """The raw view alone: the others take passes of the model."""
        return merged(state, self._placed(state, {("raw", 0): self._moments(captures)}))

    def update_beside(self, state: State, captures: Captures, model: Model) -> State:
        """All views."""
        views, found = self._settled, {}
        for view, number, states, source in views.drawn(captures, model):
            if views.raw:
                found[view, number] = self._moments(states)
            if views.means is not None:
                mean = views.means.of(source)
                found[CENTRED[view], number] = self._moments(states, mean)
        return merged(state, self._placed(state, found))

    def _moments(self, captures: Captures, mean: torch.Tensor | None = None) -> State:
        return moments(*spins(captures, self._settled.how.tokens, self.drop, mean))

    def _placed(self, like: State, found: Mapping[tuple[str, int], State]) -> State:
        """[view, draw, ...] of what was found; nothing elsewhere."""
        whole, names = (
            {name: torch.zeros_like(one) for name, one in like.items()},
            self._settled.names,
        )
        for (view, number), known in found.items():
            if view in names:
                for name, values in known.items():
                    whole[name][names.index(view), number] = values
        return whole

    def merge(self, left: State, right: State) -> State:
        """Prompts of both."""
        return merged(left, right)

    def finish(self, state: State) -> Measured:
        """The numbers of all prompts."""
        prompts, axes = state["prompts"], ("view", "draw", "layer")
        some = prompts > 0
        known = {
            "susceptibility": susceptibility_of(state),
            "common_magnetisation": state["mean"].norm(dim=-1),
            "magnetisation": state["length"] / prompts,
            "spin_energy": state["energy"] / prompts,
            "prompts": prompts,
            "tokens": state["tokens"],
        }
        units = {"prompts": "prompt", "tokens": "token"}
        return {
            name: Named(axes, torch.where(some, values, torch.nan), units.get(name, "1"))
            for name, values in known.items()
        }

    def block_tokens_beside(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """Those of twins and shufflings; the pass over the corpus, which is kept, is not counted."""
        return self._controls(model, prompts)

    # --- what is shown ---------------------------------------------------------------------

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (layer, view); see `probes.particles.spin_views`."""
        from probes.particles.spin_views import rows

        return rows(data)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """Susceptibility beside its controls and chance, and the magnetisation."""
        from probes.particles.spin_views import panels

        return panels(data)

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
        """Each number at a layer, raw and centred, with its twin's."""
        from probes.particles.spin_views import facts

        return facts(data, layer)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """What the numbers are, the figure, and all of them in a table."""
        from probes.particles.spin_views import section

        return section(cls, rows, data)

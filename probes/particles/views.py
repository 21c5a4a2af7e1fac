"""The views of a prompt's particles: its own states, raw and centred, and those of its controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.particles.controls import shuffled
from probes.particles.corpus import LayerMeans
from probes.particles.measured import How, measured
from probes.particles.quantities import HISTOGRAMS, OF_THE_PATH, QUANTITIES
from workbench.instrument import Measured, Named
from workbench.models.captures import Captures
from workbench.models.positions import Positions
from workbench.models.protocol import Model

__all__ = ["CENTRED", "Views"]

CENTRED = {"raw": "centred", "random": "random_centred", "shuffled": "shuffled_centred"}
"""What each view is called when each layer's mean has been taken off."""

Numbers = Mapping[str, Tensor]
Draw = tuple[str, int, Captures, Model]


@dataclass(frozen=True)
class Views:
    """What a prompt is looked at as.

    Attributes:
        how: the settings of the numbers.
        raw: whether the states as they are belong to it.
        means: what centred views take off; None for no such view.
        twins, shuffles: how many of each there are.
        seed: of the first of them.
        positions: which tokens are read.
    """

    how: How
    raw: bool
    means: LayerMeans | None
    twins: int
    shuffles: int
    seed: int
    positions: Positions

    @property
    def names(self) -> list[str]:
        """The views, each control beside its own centred one."""
        there = {"raw": True, "random": self.twins > 0, "shuffled": self.shuffles > 0}
        return [name for view, has in there.items() if has for name in self._both(view)]

    def _both(self, view: str) -> list[str]:
        plain = [view] if self.raw else []
        return plain if self.means is None else [*plain, CENTRED[view]]

    @property
    def draws(self) -> int:
        """The most draws of a view."""
        return max(1, self.twins, self.shuffles)

    def of(self, captures: Captures, model: Model) -> Measured:
        """All views of a batch, from its captures and passes beside them."""
        found = {}
        for view, number, states, source in self.drawn(captures, model):
            if self.raw:
                found[view, number] = measured(states, self.how)
            if self.means is not None:
                found[CENTRED[view], number] = measured(states, self.how, self.means.of(source))
        return _named(found, self.names, self.draws)

    def raw_alone(self, captures: Captures) -> Measured:
        """What captures say without their model."""
        return _named({("raw", 0): measured(captures, self.how)}, self.names, self.draws)

    def drawn(self, captures: Captures, model: Model) -> Iterator[Draw]:
        """A batch and its controls: (view, number of the draw, states, the model that they are of)."""
        yield "raw", 0, captures, model
        prompts = captures.batch.prompts
        for number in range(self.twins):
            twin = model.twin(self.seed + number)
            yield "random", number, twin.capture(twin.batch(prompts), *self._read), twin
        for number in range(self.shuffles):
            others = [shuffled(p, self.how.tokens, self.seed + number) for p in prompts]
            yield "shuffled", number, model.capture(model.batch(others), *self._read), model

    @property
    def _read(self) -> tuple[str, Positions]:
        return "resid_post", self.positions


def _named(
    found: Mapping[tuple[str, int], Numbers], views: Sequence[str], draws: int
) -> dict[str, Named]:
    first = next(iter(found.values()))
    return {
        name: Named(
            ("prompt", "view", "draw", *_own_axes(name)),
            _filled({key: numbers[name] for key, numbers in found.items()}, views, draws),
            {**QUANTITIES, **HISTOGRAMS}[name].unit,
        )
        for name in first
    }


def _own_axes(name: str) -> tuple[str, ...]:
    if name in OF_THE_PATH:
        return ()
    return ("layer", "cosine") if name in HISTOGRAMS else ("layer",)


def _filled(found: Mapping[tuple[str, int], Tensor], views: Sequence[str], draws: int) -> Tensor:
    """[prompt, view, draw, ...]; NaN where a view has no such draw."""
    first = next(iter(found.values()))
    whole = first.new_full((len(first), len(views), draws, *first.shape[1:]), torch.nan)
    for (view, number), values in found.items():
        if view in views:
            whole[:, views.index(view), number] = values
    return whole

"""Every ablation and control of some prompts, from their clean run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.ablation.cells import ablated, moved_at_random
from probes.ablation.clean import Clean
from probes.ablation.effects import Effects, room_of
from probes.ablation.values import Values

__all__ = ["Plan", "measured"]


@dataclass(frozen=True)
class Plan:
    """What is taken out, and how often.

    Attributes:
        what: heads, mlp, attention, or blocks.
        layers: ascending.
        ranges: every range that begins and ends with one of them, in the place of each alone.
        draws: values that are put in, one after another.
        controls: random directions.
        seed: of these.
    """

    what: str
    layers: Sequence[int]
    ranges: bool
    draws: int
    controls: int
    seed: int

    @property
    def lasts(self) -> Mapping[int, Mapping[int, int]]:
        """First layers, each with the last layers that go with it and their numbers."""
        if not self.ranges:
            return {layer: {layer: 0} for layer in self.layers}
        numbers = {layer: number for number, layer in enumerate(self.layers)}
        return {
            first: {k: number for k, number in numbers.items() if k >= first}
            for first in self.layers
        }

    def shape(self, n_heads: int) -> tuple[int, int]:
        """How many layers, and how many heads or last layers (1 where there are none)."""
        second = len(self.layers) if self.ranges else 1
        return len(self.layers), n_heads if self.what == "heads" else second

    def cells(self, n_heads: int) -> int:
        """How many components or ranges are ablated."""
        return sum(map(len, self.lasts.values())) * (n_heads if self.what == "heads" else 1)

    def passes(self, n_layers: int, n_heads: int) -> int:
        """How many blocks every token passes through, the clean run's among them."""
        each = n_heads if self.what == "heads" else 1
        above = sum(n_layers - last for lasts in self.lasts.values() for last in lasts)
        inside = {"heads": 1, "attention": 1, "mlp": 0}.get(self.what)
        own = 0
        if inside is not None:
            own = sum(max(lasts) - first + inside for first, lasts in self.lasts.items())
        return n_layers + each * (self.draws * own + (self.draws + self.controls) * above)


def measured(
    clean: Clean, plan: Plan, values: Callable[[int], Values], pace: Callable[[float], None]
) -> dict[str, Tensor]:
    """The variables of `Ablate`, [rows, ...]; controls are left out where there are none.

    Args:
        values: what is put in, by draw.
        pace: told the share that is done, now and then.
    """
    n_heads, lasts, room = clean.model.n_heads, plan.lasts, room_of(clean)
    told = _Counter(plan.cells(n_heads) * (plan.draws + plan.controls), pace)
    shape = plan.shape(n_heads)
    own, random = (Effects(clean, (*shape, n), told) for n in (plan.draws, plan.controls))
    for draw in range(plan.draws):
        for behind in ablated(clean, plan.what, values(draw), lasts, room):
            own.add(behind, draw)
            for number in range(draw, plan.controls, plan.draws):
                random.add(moved_at_random(clean, behind, number, plan.seed), number)
    own.finish()
    random.finish()
    run = own.block_tokens + random.block_tokens + clean.model.n_layers * clean.tokens
    found = {"score": own.score, "loss": own.loss}
    if plan.controls:
        found |= {"random_score": random.score, "random_loss": random.loss}
    return found | {
        "clean": clean.score.cpu(),
        "loss_clean": clean.loss.cpu(),
        "block_tokens": torch.full((len(clean),), run // len(clean)),
    }


@dataclass
class _Counter:
    """Tells the share that is done."""

    total: int
    pace: Callable[[float], None]
    done: int = 0

    def __call__(self, more: int) -> None:
        self.done += more
        self.pace(self.done / self.total)

"""Which prompts are base and source of each other, and on which side of the split they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.errors import PromptError

__all__ = ["LEAST", "Pairs", "arbitrary", "paired"]

LEAST = 8  # pairs of a side: fewer say nothing


@dataclass(frozen=True)
class Pairs:
    """Base and source of each pair.

    Attributes:
        base, source: [N] rows of the prompts.
        held_out: [N] whether the pair is for evaluation; no group stands on both sides.
    """

    base: Tensor
    source: Tensor
    held_out: Tensor

    def __len__(self) -> int:
        return len(self.base)

    @property
    def train(self) -> Tensor:
        """Indices of the training pairs."""
        return torch.nonzero(~self.held_out)[:, 0]


def paired(
    table: Mapping[str, Tensor], *, seed: int, share: float, most: int, within: str
) -> Pairs:
    """Pairs of one kind, of different groups and targets, on either side of a split of the groups.

    Each prompt is base at most once, in a random order; its source is drawn from all that may be.

    Args:
        table: `group`, `kind` and `target`, [prompts] integers each, in an order that does not
            depend on how the prompts were given.
        seed: of the split and of the draws.
        share: of the groups that is held out.
        most: pairs of each side.
        within: the field whose value is the kind, for the error.

    Raises:
        PromptError: too few pairs on a side.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = torch.unique(table["group"])
    order = groups[torch.randperm(len(groups), generator=generator)]
    count = max(1, round(share * len(groups)))
    held = torch.isin(table["group"], order[:count])
    sides = []
    for side, name in ((~held, "training"), (held, "held-out")):
        found = _side(table, torch.nonzero(side)[:, 0], generator, most)
        if len(found) < LEAST:
            raise PromptError(
                f"interchange: {len(found)} {name} pairs of {len(table['group'])} prompts in {len(groups)} "
                f"groups: expected at least {LEAST} of the same {within!r} with different groups and "
                "targets; give a larger prompt set (a file of prompts; in the app, on the page Prompt sets)"
            )
        sides.append(found)
    both = torch.tensor(sides[0] + sides[1])
    return Pairs(both[:, 0], both[:, 1], torch.arange(len(both)) >= len(sides[0]))


def _side(
    table: Mapping[str, Tensor], members: Tensor, generator: torch.Generator, most: int
) -> list[tuple[int, int]]:
    group, kind, target = (table[name][members] for name in ("group", "kind", "target"))
    found: list[tuple[int, int]] = []
    for base in torch.randperm(len(members), generator=generator).tolist():
        if len(found) == most:
            break
        may = (kind == kind[base]) & (group != group[base]) & (target != target[base])
        sources = torch.nonzero(may)[:, 0]
        if len(sources):
            drawn = int(torch.randint(len(sources), (1,), generator=generator))
            found.append((int(members[base]), int(members[sources[drawn]])))
    return found


def arbitrary(
    kind: Tensor,
    base: Tensor,
    source: Tensor,
    known: Mapping[int, Tensor],
    vocabulary: int,
    seed: int,
) -> Tensor:
    """[N] in the place of each pair's counterfactual target another answer, by a fixed random rule.

    The answers of a kind stand in one random circle; the target becomes the answer after the
    source's, or, where that is the base's own, the one after that: never the source's or the base's.
    Where a kind has but two answers, a third is drawn from the vocabulary.

    Args:
        kind: [N] of each pair.
        base, source: [N] the two answers.
        known: the answers of each kind, ascending.
        vocabulary: how many tokens there are.
    """
    generator = torch.Generator().manual_seed(seed)
    after: dict[tuple[int, int], int] = {}
    for one in sorted(known):
        ring = _ring(known[one].tolist(), vocabulary, generator)
        after |= {(one, ring[i - 1]): token for i, token in enumerate(ring)}
    found = []
    for which, own, wanted in zip(kind.tolist(), base.tolist(), source.tolist(), strict=True):
        token = after[which, wanted]
        found.append(after[which, own] if token == own else token)
    return torch.tensor(found)


def _ring(answers: list[int], vocabulary: int, generator: torch.Generator) -> list[int]:
    while len(answers) < 3:
        token = int(torch.randint(vocabulary, (1,), generator=generator))
        answers = [*answers, token] if token not in answers else answers
    return [answers[i] for i in torch.randperm(len(answers), generator=generator).tolist()]

"""Interchanges at every layer: in the subspace, of the whole state, and in each control."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from probes.causal.metrics import UNITS, Goal, Metric, scores
from probes.interchange import bootstrap
from probes.interchange.levels import Asked, Level, levels
from probes.interchange.pairs import Pairs, arbitrary
from probes.interchange.state import encoded
from probes.interchange.subspaces import matched, moved
from workbench.instrument import Measured, Named
from workbench.models.protocol import Model

__all__ = ["CONTROLS", "TWINS", "Case", "Subspace", "measured"]

CONTROLS = ("subspace", "whole", "unchanged", "random", "arbitrary")
TWINS = ("twin", "twin_unchanged")
NUMBERS = ("accuracy", "top", "score")
CELL = ("control", "layer")


class Subspace(Protocol):
    """How a subspace is had at a layer; the same procedure serves its controls."""

    def basis(self, level: Level, case: Case) -> Tensor:
        """[width, k] orthonormal columns."""

    def random(self, level: Level, k: int, draw: int) -> Tensor:
        """[width, k] a subspace of the same kind that nothing speaks for."""


@dataclass(frozen=True)
class Case:
    """The pairs with what they are scored on.

    Attributes:
        base, source: [N] rows of `asked`'s prompts.
        held_out: [N] whether a pair is for evaluation.
        own, wanted: [N] the base's target and the one that the interchange should bring about.
        kind: [N] index of each pair's kind.
        answers: by kind the answers that the prompt set has, ascending.
        classes: [P] target of each prompt; kinds: [P] its kind.
        metric: what a score is.
    """

    asked: Asked
    base: Tensor
    source: Tensor
    held_out: Tensor
    own: Tensor
    wanted: Tensor
    kind: Tensor
    answers: Mapping[int, Tensor]
    classes: Tensor
    kinds: Tensor
    metric: Metric

    @classmethod
    def of(
        cls,
        model: Model,
        state: Mapping[str, Tensor],
        pairs: Pairs,
        metric: Metric,
        ran: Callable[[int], None],
    ) -> Case:
        """The pairs of a prompt set's state, each prompt once, with their sources' targets."""
        rows, index = torch.unique(torch.cat([pairs.base, pairs.source]), return_inverse=True)
        base, source = index.view(2, -1)
        _, kinds = torch.unique(state["kind"], return_inverse=True)
        answers = {
            int(kind): torch.unique(state["target"][kinds == kind]) for kind in torch.unique(kinds)
        }
        target = state["target"][rows]
        return cls(
            Asked(model, encoded(state, rows), state["at"][rows], ran),
            base,
            source,
            pairs.held_out,
            target[base],
            target[source],
            kinds[rows][base],
            answers,
            target,
            kinds[rows],
            metric,
        )

    @property
    def train(self) -> Tensor:
        """Indices of the training pairs."""
        return torch.nonzero(~self.held_out)[:, 0]

    def on(self, model: Model) -> Case:
        """The same on another model."""
        return replace(self, asked=replace(self.asked, model=model))

    def towards_arbitrary(self, seed: int) -> Case:
        """The same with other targets in the place of the sources'."""
        vocabulary = self.asked.model.vocab_size
        drawn = arbitrary(self.kind, self.own, self.wanted, self.answers, vocabulary, seed)
        return replace(self, wanted=drawn)

    def judged(self, runs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """[3, N] of the pairs' logits: wanted beats own, wanted beats every answer, score."""
        found = torch.full((3, len(self.base)), torch.nan)
        rivals = self._rivals()
        for part, logits in runs:
            wanted, own = (ids[part].to(logits.device) for ids in (self.wanted, self.own))
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
            aim, other = (wide.gather(1, ids[:, None])[:, 0] for ids in (wanted, own))
            beaten = rivals[self.kind[part]].to(logits.device)
            beaten.scatter_(1, wanted[:, None], False)
            best = wide.masked_fill(~beaten, -torch.inf).amax(1)
            goal = Goal((), wanted[:, None], own)
            score = scores(self.metric, logits[:, None], goal)
            found[:, part] = torch.stack([aim > other, aim > best, score]).to(found)
        return found

    def _rivals(self) -> Tensor:
        """[kinds, vocabulary] whether a token is an answer of the kind."""
        found = torch.zeros(len(self.answers), self.asked.model.vocab_size, dtype=torch.bool)
        for kind, ids in self.answers.items():
            found[kind, ids] = True
        return found


@dataclass(frozen=True)
class _Site:
    """One layer's values of both prompts of each pair."""

    level: Level
    case: Case
    own: Tensor
    other: Tensor

    @classmethod
    def of(cls, level: Level, case: Case) -> _Site:
        values = level.values.to(torch.promote_types(level.values.dtype, torch.float32))
        base, source = case.base.to(values.device), case.source.to(values.device)
        return cls(level, case, values[base], values[source])

    def judged(self, moves: Tensor, case: Case | None = None, only: Tensor | None = None) -> Tensor:
        """[3, N] with values moved so; NaN but for the pairs `only`, where it is given."""
        pairs = torch.arange(len(moves)) if only is None else only
        runs = self.level.logits(self.case.base[pairs], moves[pairs.to(moves.device)])
        return (case or self.case).judged((pairs[part], logits) for part, logits in runs)

    def within(self, basis: Tensor) -> Tensor:
        return moved(self.own, self.other, basis.to(self.own))

    def as_far(self, basis: Tensor, like: Tensor) -> Tensor:
        return matched(self.own, self.other, basis.to(self.own), like)


@torch.no_grad()
def measured(
    model: Model,
    state: Mapping[str, Tensor],
    pairs: Pairs,
    subspace: Subspace,
    *,
    site: str,
    layers: Sequence[int],
    metric: Metric,
    draws: int,
    twin: bool,
    seed: int,
    ran: Callable[[int], None],
) -> Measured:
    """Everything that the instrument says of its pairs; axes are those of `Interchange`.

    `ran` is told the tokens of each batch that is run.
    """
    case = Case.of(model, state, pairs, metric, ran)
    other = case.on(model.twin(seed)) if twin else None
    found: dict[str, list[Tensor]] = {}
    bases = []
    unchanged = case.judged(case.asked.logits(case.base))
    for level in levels(case.asked, site, layers):
        basis, results = _at(level, case, subspace, draws, seed)
        bases.append(basis)
        for name, result in {**results, "unchanged": unchanged}.items():
            found.setdefault(name, []).append(result)
    if other is not None:
        still = other.judged(other.asked.logits(other.base))
        for level in levels(other.asked, site, layers):
            here = _Site.of(level, other)
            result = here.judged(here.within(subspace.basis(level, other)))
            found.setdefault("twin", []).append(result)
            found.setdefault("twin_unchanged", []).append(still)
    names = [*CONTROLS, *(TWINS if twin else ())]
    each = torch.stack([torch.stack(found[name]) for name in names])
    return {
        **_summaries(each, state, pairs, metric, seed),
        **_recorded(state, pairs, bases),
        "pair_score": Named((*CELL, "pair"), each[:, :, 2], UNITS[metric]),
    }


def _at(
    level: Level, case: Case, subspace: Subspace, draws: int, seed: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The subspace at one layer, and [3, N] of each interchange there."""
    here, aside = _Site.of(level, case), case.towards_arbitrary(seed)
    basis = subspace.basis(level, case)
    move = here.within(basis)
    other = subspace.basis(level, aside)
    held = torch.nonzero(case.held_out)[:, 0]
    drawn = [
        here.judged(here.as_far(subspace.random(level, basis.shape[1], draw), move), only=held)
        for draw in range(draws)
    ]
    return basis, {
        "subspace": here.judged(move),
        "whole": here.judged(here.other - here.own),
        "random": torch.stack(drawn).mean(0),
        "arbitrary": here.judged(here.within(other), aside),
    }


def _summaries(
    each: Tensor, state: Mapping[str, Tensor], pairs: Pairs, metric: Metric, seed: int
) -> dict[str, Named]:
    """Means over held-out pairs with their intervals; `each` is [control, layer, 3, N]."""
    held = pairs.held_out
    base, source = (state["group"][rows[held]] for rows in (pairs.base, pairs.source))
    drawn = bootstrap.weights(base, source, seed)
    units = dict(zip(NUMBERS, ("share", "share", UNITS[metric]), strict=True))
    values = {name: each[:, :, i, held] for i, name in enumerate(NUMBERS)}
    values["lead"] = values["accuracy"][:1] - values["accuracy"]
    found: dict[str, Named] = {}
    for name, numbers in values.items():
        ends = zip(("", "_low", "_high"), bootstrap.intervals(numbers, drawn), strict=True)
        unit = units.get(name, "share")
        found |= {f"{name}{end}": Named(CELL, value.float(), unit) for end, value in ends}
    train = each[:, :, 0, ~held].mean(-1)
    groups = torch.unique(torch.cat([base, source]))
    return found | {
        "train_accuracy": Named(CELL, train, "share"),
        "n": Named((), held.sum(), "held-out pairs"),
        "n_train": Named((), (~held).sum(), "training pairs"),
        "groups": Named((), torch.tensor(len(groups)), "held-out groups"),
    }


def _recorded(
    state: Mapping[str, Tensor], pairs: Pairs, bases: Sequence[Tensor]
) -> dict[str, Named]:
    """The pairs, and the subspaces; NaN where a layer's has fewer dimensions."""
    most = max(basis.shape[1] for basis in bases)
    wide = [
        torch.nn.functional.pad(basis.float().cpu(), (0, most - basis.shape[1]), value=torch.nan)
        for basis in bases
    ]
    counts = torch.tensor([basis.shape[1] for basis in bases])
    key = "hash of the prompt's tokens and target"
    return {
        "dimensions": Named(("layer",), counts, "dimensions"),
        "basis": Named(("layer", "unit", "direction"), torch.stack(wide), "share of a unit vector"),
        "pair_base": Named(("pair",), state["key"][pairs.base], key),
        "pair_source": Named(("pair",), state["key"][pairs.source], key),
        "pair_held_out": Named(("pair",), pairs.held_out.long(), "1 where held out"),
    }

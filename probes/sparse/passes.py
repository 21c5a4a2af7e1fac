"""The two passes over a prompt set: moments of every unit, then the columns of a shortlist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probes.sparse.known import Feature, Known, Rows
from probes.sparse.labels import Pool
from probes.sparse.moments import Moments
from probes.sparse.sources import Part, Source, parts, pooled
from workbench.instrument import Citation, Measured, SetLevel, State
from workbench.models.captures import Captures, Read
from workbench.models.protocol import Model

__all__ = ["SEEN", "Columns", "first_pass", "merged"]

SEEN = "seen"
BOTH = 2  # the feature and its control


def first_pass(
    captures: Captures, sources: Sequence[Source], known: Known, pool: Pool
) -> dict[str, Tensor]:
    """What one batch adds, by number of the source: moments of training examples, and for p values.

    `train` are the moments of each feature, then of each control; `whole` those of all examples;
    `sums` [features, arrangements, units] sums of the activations that an arrangement calls positive,
    and `positives` [features, arrangements] how many there are. `seen`, of no source, are the prompts.
    """
    found = {SEEN: torch.tensor(known.numbers(captures.batch.prompts))}
    for number, source in enumerate(sources):
        whole: State = {}
        for part in parts(captures, source):
            whole = merged(whole, _of_part(part, known, pool))
        found |= {f"{number}.{name}": values for name, values in whole.items()}
    return found


def _of_part(part: Part, known: Known, pool: Pool) -> dict[str, Tensor]:
    found = []
    for one in known.features.values():
        at = known.rows(part.prompts, one.name)
        found.append(
            _of_feature(one, at, pooled(part, part.units, at, pool))
            if at.index
            else _nothing(one, part.units)
        )
    return {name: torch.stack([own[name] for own in found]).cpu() for name in found[0]}


def _of_feature(one: Feature, rows: Rows, acts: Tensor) -> dict[str, Tensor]:
    index = torch.tensor(rows.index)
    labels = one.labels[index]
    control = torch.full_like(labels, -1) if one.control is None else one.control[index]
    both = torch.stack([labels, control])
    training = torch.where(one.part[index] == 0, both, -1).to(acts.device)
    found = Moments.of(acts, training).state("train.")
    if one.arrangements is None:
        return found
    whole = Moments.of(acts, labels[None].to(acts.device))
    arranged = one.arrangements.arranged(one.groups[index], one.offsets[index]).to(acts.device)
    sums = arranged.to(acts.dtype) @ acts
    return found | whole.state("whole.") | {"sums": sums, "positives": arranged.sum(1)}


def _nothing(one: Feature, acts: Tensor) -> dict[str, Tensor]:
    """Of a batch without an example of a feature."""
    units = acts.shape[1]
    found = Moments.empty(BOTH, units, acts.device).state("train.")
    if one.arrangements is None:
        return found
    count = len(one.arrangements.orders)
    sums = {
        "sums": acts.new_zeros(count, units),
        "positives": torch.zeros(count, dtype=torch.int64, device=acts.device),
    }
    return found | Moments.empty(1, units, acts.device).state("whole.") | sums


def merged(left: State, right: State) -> dict[str, Tensor]:
    """The first pass over two parts of the prompts together."""
    if not left or not right:
        return dict(left or right)
    found = {
        name: left[name] + right[name] for name in left if name.endswith(("sums", "positives"))
    }
    if SEEN in left:
        found[SEEN] = torch.cat([left[SEEN], right[SEEN]])
    for prefix in sorted({name.removesuffix("count") for name in left if name.endswith("count")}):
        both = Moments.from_state(left, prefix).merge(Moments.from_state(right, prefix))
        found |= both.state(prefix)
    return found


@dataclass(frozen=True)
class Columns(SetLevel):
    """The second pass: activations of some units of each feature and source.

    Attributes:
        sources, positions, pool: what is read.
        known: the examples.
        wanted: by (feature, number of the source), what to keep of the units: name -> [columns] indices,
            or a [units, columns] map.
        dense: whether to keep, as "dense", the whole states that the units are of.
    """

    sources: Sequence[Source]
    positions: str
    pool: Pool
    known: Known
    wanted: Mapping[tuple[str, int], Mapping[str, Tensor]]
    dense: bool

    name: ClassVar[str] = "sparse_probe"
    title: ClassVar[str] = "Sparse probes"
    long_targets: ClassVar[bool] = True
    citation: ClassVar[Citation] = Citation("", "")

    def reads(self, model: Model) -> Read:
        """The sites of the sources."""
        return Read(sorted({source.site for source in self.sources}), self.positions)

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """None."""
        return {}

    def start(self, model: Model) -> State:
        """Nothing."""
        return {}

    def update(self, state: State, captures: Captures) -> State:
        """The columns of one more batch."""
        found: dict[str, Tensor] = {}
        for number, name in enumerate(self.known.features):
            index = self.known.rows(captures.batch.prompts, name).index
            if index:
                found[f"{number}.index"] = torch.tensor(index)
        for number, source in enumerate(self.sources):
            for part in parts(captures, source):
                state = self.merge(state, self._of_part(number, part))
        return self.merge(state, found)

    def _of_part(self, source: int, part: Part) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for number, name in enumerate(self.known.features):
            rows = self.known.rows(part.prompts, name)
            if not rows.index:
                continue
            own = pooled(part, part.units, rows, self.pool)
            kept = {what: _kept(own, wanted) for what, wanted in self.wanted[name, source].items()}
            if self.dense:
                kept["dense"] = pooled(part, part.states, rows, self.pool)
            found |= {f"{number}.{source}.{what}": one.cpu() for what, one in kept.items()}
        return found

    def merge(self, left: State, right: State) -> State:
        """One behind the other."""
        names = dict.fromkeys([*left, *right])
        return {
            name: torch.cat([part[name] for part in (left, right) if name in part])
            for name in names
        }

    def finish(self, state: State) -> Measured:
        """Nothing: who asks for columns takes the state."""
        return {}


def _kept(acts: Tensor, wanted: Tensor) -> Tensor:
    """Columns by index, or products with a direction."""
    if wanted.is_floating_point():
        return acts.double() @ wanted.to(acts.device)
    return acts[:, wanted.to(acts.device)]

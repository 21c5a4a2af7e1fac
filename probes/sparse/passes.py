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
from workbench.errors import ModelError
from workbench.instrument import Citation, Measured, SetLevel, State
from workbench.models.captures import Captures, Read
from workbench.models.protocol import Model

__all__ = ["SEEN", "Columns", "first_pass", "merged", "pooled"]

SEEN = "seen"
BOTH = 2  # the feature and its control


def pooled(captures: Captures, acts: Tensor, rows: Rows, pool: Pool) -> Tensor:
    """[m, units] activations of examples: of their one token, or the mean or greatest over tokens."""
    table = captures.batch.ids.new_full(captures.batch.ids.shape, -1)
    places = captures.places
    table[places.row, places.position] = torch.arange(len(places), device=table.device)
    if all(len(one) == 1 for one in rows.places):
        row, position = torch.tensor([one[0] for one in rows.places], device=table.device).T
        return acts[table[row, position]]
    found = []
    for one in rows.places:
        row, position = torch.tensor(one, device=table.device).T
        own = acts[table[row, position]]
        found.append(own.mean(0) if pool == "mean" else own.amax(0))
    return torch.stack(found)


def first_pass(captures: Captures, site: str, known: Known, pool: Pool) -> dict[str, Tensor]:
    """What one batch adds, by layer: moments of training examples, and what p values need.

    `train` are the moments of each feature, then of each control; `whole` those of all examples;
    `sums` [features, arrangements, units] sums of the activations that an arrangement calls positive,
    and `positives` [features, arrangements] how many there are. `seen`, of no layer, are the prompts.
    """
    features = list(known.features.values())
    rows = [known.rows(captures.batch.prompts, one.name) for one in features]
    found = {SEEN: torch.tensor(known.numbers(captures.batch.prompts))}
    for layer in captures.layers(site):
        acts = finite(captures[site, layer], site, layer).flatten(1)
        parts = [
            _of_feature(one, at, pooled(captures, acts, at, pool))
            if at.index
            else _nothing(one, acts)
            for one, at in zip(features, rows, strict=True)
        ]
        found |= {
            f"{layer}.{name}": torch.stack([part[name] for part in parts]).cpu()
            for name in parts[0]
        }
    return found


def finite(acts: Tensor, site: str, layer: int) -> Tensor:
    """The activations, float32 at least, since sums of them are taken.

    Raises:
        ModelError: some of them are NaN or infinite.
    """
    if not acts.isfinite().all():
        raise ModelError(f"{site}, layer {layer}: activations that are not finite; try float32")
    return acts.to(torch.promote_types(acts.dtype, torch.float32))


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
    found = Moments.empty(BOTH, units).state("train.")
    if one.arrangements is None:
        return found
    count = len(one.arrangements.orders)
    sums = {
        "sums": acts.new_zeros(count, units),
        "positives": torch.zeros(count, dtype=torch.int64),
    }
    return found | Moments.empty(1, units).state("whole.") | sums


def merged(left: State, right: State) -> dict[str, Tensor]:
    """The first pass over two parts of the prompts together."""
    if not left or not right:
        return dict(left or right)
    found = {
        name: left[name] + right[name] for name in left if name.endswith(("sums", "positives"))
    }
    found[SEEN] = torch.cat([left[SEEN], right[SEEN]])
    for prefix in sorted({name.removesuffix("count") for name in left if name.endswith("count")}):
        both = Moments.from_state(left, prefix).merge(Moments.from_state(right, prefix))
        found |= both.state(prefix)
    return found


@dataclass(frozen=True)
class Columns(SetLevel):
    """The second pass: activations of some units of each feature and layer.

    Attributes:
        site, positions, pool: what is read.
        known: the examples.
        wanted: by (feature, layer), what to keep: name -> [columns] indices, or a
            [units, columns] map.
    """

    site: str
    positions: str
    pool: Pool
    known: Known
    wanted: Mapping[tuple[str, int], Mapping[str, Tensor]]

    name: ClassVar[str] = "sparse_probe"
    title: ClassVar[str] = "Sparse probes"
    long_targets: ClassVar[bool] = True
    citation: ClassVar[Citation] = Citation("", "")

    def reads(self, model: Model) -> Read:
        """The site at the layers of which something is wanted."""
        return Read(sorted({(self.site, layer) for _, layer in self.wanted}), self.positions)

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
            rows = self.known.rows(captures.batch.prompts, name)
            if not rows.index:
                continue
            found[f"{number}.index"] = torch.tensor(rows.index)
            for layer in captures.layers(self.site):
                acts = captures[self.site, layer].flatten(1)
                own = pooled(captures, acts, rows, self.pool)
                found |= {
                    f"{number}.{layer}.{what}": _kept(own, wanted).cpu()
                    for what, wanted in self.wanted[name, layer].items()
                }
        return self.merge(state, found)

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

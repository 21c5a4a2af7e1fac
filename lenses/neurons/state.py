"""What is known of neurons over a prompt set: exact sums, histograms and top contexts, which merge.

In any batching and sharding the same comes of it, but for the rounding of activations and of sums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.instrument import State
from workbench.models.batch import DecoderBatch
from workbench.models.captures import Captures

__all__ = ["BINS", "bin_ends", "empty", "key_of", "merged", "seen"]

LEAST, MOST = -3, 3  # decades of |activation| that have bins of their own
PER_DECADE = 4
CONTEXT = ("value", "key", "position", "token", "activation")
ADDED = ("counts", "tokens", "positive", "sum", "size")


@cache
def _edges() -> tuple[float, ...]:
    steps = range(LEAST * PER_DECADE, MOST * PER_DECADE + 1)
    ends = [10 ** (step / PER_DECADE) for step in steps]
    return (*(-end for end in reversed(ends)), *ends)


def bin_ends() -> tuple[list[float], list[float]]:
    """Lower and upper ends of the histogram's bins, each (low, high].

    Four a decade of the activation's size, from .001 to 1000, for each sign; one for what is nearer
    to 0, and one at each end for what is beyond. Fixed, so that histograms of shards add up.
    """
    edges = list(_edges())
    return [float("-inf"), *edges], [*edges, float("inf")]


BINS = 2 * (MOST - LEAST) * PER_DECADE + 3


def empty(units: int, contexts: int, window: int, dtype: torch.dtype) -> State:
    """Nothing seen yet: of `units` neurons, `contexts` contexts of `window` tokens before and after."""
    shape, width = (units, contexts), 2 * window + 1
    real = torch.promote_types(dtype, torch.float32)
    return {
        "counts": torch.zeros(units, BINS, dtype=torch.int64),
        "tokens": torch.zeros((), dtype=torch.int64),
        "positive": torch.zeros(units, dtype=torch.int64),
        "sum": torch.zeros(units, dtype=torch.float64),
        "size": torch.zeros(units, dtype=torch.float64),
        "low": torch.full((units,), torch.inf, dtype=real),
        "high": torch.full((units,), -torch.inf, dtype=real),
        "value": torch.full(shape, -torch.inf, dtype=real),
        "key": torch.zeros(shape, dtype=torch.int64),
        "position": torch.zeros(shape, dtype=torch.int64),
        "token": torch.full((*shape, width), -1),
        "activation": torch.full((*shape, width), torch.nan, dtype=real),
    }


def merged(left: State, right: State) -> dict[str, Tensor]:
    """What is known from both together."""
    found = {name: left[name] + right[name] for name in ADDED}
    found["low"] = torch.minimum(left["low"], right["low"])
    found["high"] = torch.maximum(left["high"], right["high"])
    both = {name: torch.cat([left[name], right[name]], dim=1) for name in CONTEXT}
    return found | _best(both, left["value"].shape[1])


def seen(captures: Captures, acts: Tensor, contexts: int, window: int) -> State:
    """What one batch says, on the CPU.

    Args:
        acts: [N, units] activations at the captures' places.
        contexts, window: as for `empty`.

    Raises:
        ModelError: an activation is not finite.
    """
    if not acts.isfinite().all():
        raise ModelError("activations that are not finite: the dtype overflows; try float32")
    acts = acts.to(torch.promote_types(acts.dtype, torch.float32))
    found = {
        "counts": _counts(acts),
        "tokens": torch.tensor(len(acts)),
        "positive": (acts > 0).sum(0),
        "sum": acts.sum(0, dtype=torch.float64),
        "size": acts.abs().sum(0, dtype=torch.float64),
        "low": acts.amin(0),
        "high": acts.amax(0),
    } | _contexts(captures, acts, contexts, window)
    return {name: values.cpu() for name, values in found.items()}


def _counts(acts: Tensor) -> Tensor:
    """[units, bins] how many activations fall into each bin."""
    units = acts.shape[1]
    edges = torch.tensor(_edges(), dtype=acts.dtype, device=acts.device)
    bins = torch.bucketize(acts, edges) + BINS * torch.arange(units, device=acts.device)
    return torch.bincount(bins.flatten(), minlength=units * BINS).view(units, BINS)


def _contexts(captures: Captures, acts: Tensor, contexts: int, window: int) -> dict[str, Tensor]:
    """The best places of each neuron, one a prompt at most, with the tokens around them."""
    best, units = _peaks(captures, acts), acts.shape[1]
    row = best.pop("row")
    order = _order(best, contexts)
    found = {name: values.gather(1, order) for name, values in best.items()}
    row = row.gather(1, order)
    where = found["position"][..., None] + torch.arange(-window, window + 1, device=row.device)
    lengths = captures.batch.mask.sum(1)[row][..., None]
    inside = (where >= 0) & (where < lengths)
    where, rows = where.clamp(min=0).minimum(lengths - 1), row[..., None]
    ids = captures.batch.ids[rows, where + captures.batch.starts[rows]]
    place = _table(captures)[rows, where]
    unit = torch.arange(units, device=row.device)[:, None, None]
    nearby = acts[place.clamp_min(0), unit]
    read = inside & (place >= 0)
    found["token"] = torch.where(inside, ids, -1)
    found["activation"] = torch.where(read, nearby, torch.full_like(nearby, torch.nan))
    return found


def _peaks(captures: Captures, acts: Tensor) -> dict[str, Tensor]:
    """[units, prompts] each prompt's greatest activation, and the first position that has it."""
    rows = torch.unique(captures.places.row)
    value, position = [], []
    for row in rows:
        own = (captures.places.row == row).nonzero()[:, 0]
        peak = acts[own].max(0)  # the first of equal ones
        value.append(peak.values)
        position.append(captures.places.position[own][peak.indices])
    batch = captures.batch
    read = batch.source.prompts if isinstance(batch, DecoderBatch) else batch.prompts
    keys = torch.tensor([key_of(read[row].ids) for row in rows.tolist()])
    shape = (acts.shape[1], len(rows))
    return {
        "value": torch.stack(value, dim=1),
        "key": keys.to(acts.device).expand(shape),
        "position": torch.stack(position, dim=1),
        "row": rows.expand(shape),
    }


def key_of(ids: Sequence[int]) -> int:
    """Names a prompt by its tokens, the same in any batch and shard."""
    return int.from_bytes(hashlib.sha256(repr(list(ids)).encode()).digest()[:7], "big")


def _table(captures: Captures) -> Tensor:
    """[rows, width] the place of each position; -1 where it was not read."""
    table = captures.batch.ids.new_full(captures.batch.ids.shape, -1)
    places = captures.places
    table[places.row, places.position] = torch.arange(len(places), device=table.device)
    return table


def _best(contexts: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The best `count` of [units, any] contexts."""
    order = _order(contexts, count)
    found = {name: contexts[name].gather(1, order) for name in CONTEXT[:3]}
    wide = order[..., None].expand(*order.shape, contexts["token"].shape[2])
    return found | {name: contexts[name].gather(1, wide) for name in CONTEXT[3:]}


def _order(contexts: dict[str, Tensor], count: int) -> Tensor:
    """[units, count] by descending value; of equal ones by prompt, then by position."""
    order = contexts["position"].argsort(dim=1, stable=True)
    for name, descending in (("key", False), ("value", True)):
        there = contexts[name].gather(1, order)
        order = order.gather(1, there.argsort(dim=1, descending=descending, stable=True))
    return order[:, :count]

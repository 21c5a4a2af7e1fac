"""The units that probes take first, each by itself: how both classes are spread over its activation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.sparse.held_out import Examples, Probe
from probes.sparse.scores import best_threshold, scores

__all__ = ["BINS", "SHOWN", "entering", "spread"]

SHOWN = 8  # units of a feature and layer
BINS = 24  # of equal width, from the least to the greatest activation


def entering(probes: Mapping[int, Probe]) -> Tensor:
    """[at most 8] columns in the order in which probes of growing k take them, the strongest first."""
    order = dict.fromkeys(unit for k in sorted(probes) for unit in probes[k].strongest.tolist())
    return torch.tensor(list(order)[:SHOWN])


@dataclass(frozen=True)
class _Unit:
    """One unit: its F1 by itself, the ends of its bins, and [2, bins] counts of both classes."""

    f1: float
    low: float
    high: float
    count: Tensor

    @classmethod
    def of(cls, acts: Tensor, examples: Examples) -> _Unit:
        has = examples.labels.bool()
        low, high = (float(end) for end in acts.double().aminmax())
        width = (high - low) / BINS or 1.0
        at = ((acts.double() - low) / width).long().clamp(max=BINS - 1)
        count = torch.stack([torch.bincount(at[side], minlength=BINS) for side in (~has, has)])
        return cls(_f1(acts.double(), examples), low, high, count)


def _f1(acts: Tensor, examples: Examples) -> float:
    """On held-out examples, by a threshold from the others; which side is up, training says."""
    train, known, has = examples.train, ~examples.test, examples.labels.bool()
    up = acts[train & has].mean() >= acts[train & ~has].mean()
    logits = acts if up else -acts
    threshold = best_threshold(logits[known], examples.labels[known])
    return scores(logits[examples.test], examples.labels[examples.test], threshold).f1


def spread(columns: Tensor, examples: Examples) -> dict[str, Tensor]:
    """Of [n, units] activations, by unit: neuron_f1, neuron_low, neuron_high, and histogram.

    Histograms are of all examples, training ones among them; 8 units, and NaN and counts of 0 where
    there are fewer.
    """
    units = [_Unit.of(column.cpu(), examples) for column in columns.T]
    numbers = torch.full((3, SHOWN), math.nan, dtype=torch.float64)
    numbers[:, : len(units)] = torch.tensor(
        [[u.f1, u.low, u.high] for u in units], dtype=torch.float64
    ).T
    counts = torch.zeros(SHOWN, 2, BINS, dtype=torch.int64)
    counts[: len(units)] = torch.stack([unit.count for unit in units])
    named = dict(zip(("neuron_f1", "neuron_low", "neuron_high"), numbers, strict=True))
    return {**named, "histogram": counts}

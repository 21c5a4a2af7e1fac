"""Memorised against held out, or any other two values of a field: means apart, and their difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.report.intervals import Interval, mean_interval

__all__ = ["Compared", "compared"]

Groups = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Compared:
    """Means by value of a field, with 95% intervals.

    The units are groups: a group's prompts of one value are averaged first, since they hang together. A
    prompt without a group is a unit of its own.

    Attributes:
        means: by value, ascending.
        n: units by value.
        difference: the second value's mean less the first's; None but of two values.
        paired: whether every group has prompts of both values, so that the difference is the mean of
            the groups' differences, with Student's interval; else it has Welch's.
    """

    means: Mapping[str, Interval]
    n: Mapping[str, int]
    difference: Interval | None
    paired: bool


def compared(
    values: ArrayLike, labels: Sequence[str], groups: Sequence[str | None] | None = None
) -> Compared:
    """Compare one number a prompt between the values of a field; NaN is left out.

    Args:
        labels: the field's value of each prompt.
        groups: the group of each prompt, or None; each prompt is a unit where the groups are the
            values themselves.

    >>> compared([1.0, 2.0, 5.0, 7.0], ["a", "a", "b", "b"]).difference.value
    4.5
    """
    found = np.asarray(values, dtype=np.float64)
    groups = None if groups is None or list(groups) == list(labels) else groups
    units: dict[str, dict[str, list[float]]] = {}
    for i, (value, label) in enumerate(zip(found.tolist(), labels, strict=True)):
        own = None if groups is None else groups[i]
        unit = str(i) if own is None else own
        if math.isfinite(value):
            units.setdefault(label, {}).setdefault(unit, []).append(value)
    apart = {
        label: {unit: float(np.mean(those)) for unit, those in units[label].items()}
        for label in sorted(units)
    }
    means = {label: mean_interval(list(those.values())) for label, those in apart.items()}
    paired = groups is not None and len({frozenset(those) for those in apart.values()}) == 1
    return Compared(
        means,
        {label: len(those) for label, those in apart.items()},
        _difference(apart, paired) if len(apart) == 2 else None,
        paired and len(apart) == 2,
    )


def _difference(apart: Groups, paired: bool) -> Interval:
    first, second = apart.values()
    if paired:
        return mean_interval([second[unit] - first[unit] for unit in first])
    return _welch(np.array(list(first.values())), np.array(list(second.values())))


def _welch(first: NDArray[np.float64], second: NDArray[np.float64]) -> Interval:
    """Difference of means with Welch's interval, whose degrees of freedom are Satterthwaite's.

    Source: Welch 1947, "The generalization of Student's problem when several different population
    variances are involved".
    """
    from scipy.special import stdtrit

    mean = float(second.mean() - first.mean())
    if min(len(first), len(second)) < 2:
        return Interval(mean, None, None)
    parts = [float(one.var(ddof=1)) / len(one) for one in (first, second)]
    if not sum(parts):
        return Interval(mean, mean, mean)
    spread = sum(p**2 / (len(one) - 1) for p, one in zip(parts, (first, second), strict=True))
    half = float(stdtrit(sum(parts) ** 2 / spread, 0.975)) * math.sqrt(sum(parts))
    return Interval(mean, mean - half, mean + half)

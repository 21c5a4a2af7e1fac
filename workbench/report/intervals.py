"""Intervals of 95% over prompts: of a mean, of a share and of a median."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ANY", "Interval", "mean_interval", "median_interval", "share_interval", "student"]

LEVEL = 0.95
ANY = (-math.inf, math.inf)  # the possible range of a number of which none is known


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval, which are None where it has none."""

    value: float
    low: float | None
    high: float | None


def student(n: int) -> float | None:
    """The 97.5% quantile of Student's t with n - 1 degrees of freedom; None for n < 2."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + LEVEL) / 2)) if n > 1 else None


def mean_interval(values: ArrayLike, possible: tuple[float, float] = ANY) -> Interval:
    """Mean with Student's interval, mean -+ t s / sqrt(n); no interval for n < 2.

    Args:
        values: one number a prompt.
        possible: the least and the largest that the quantity can be; the interval is cut there.
    """
    found = _sound(values)
    mean, t = float(found.mean()), student(len(found))
    if t is None:
        return Interval(mean, None, None)
    half = t * float(found.std(ddof=1)) / math.sqrt(len(found))
    # Rounding must not leave the mean outside its own interval.
    least, most = min(possible[0], mean), max(possible[1], mean)
    return Interval(mean, max(mean - half, least), min(mean + half, most))


def share_interval(hits: float, n: int) -> Interval:
    """Share hits / n with Wilson's score interval; no interval for n < 2.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    from scipy.special import ndtri

    share = hits / n
    if n < 2:
        return Interval(share, None, None)
    z = float(ndtri((1 + LEVEL) / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Rounding must not leave the estimate outside its own interval where it is 0 or 1.
    return Interval(share, min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share))


def median_interval(values: ArrayLike) -> Interval:
    """Median between two order statistics, which hold it with at least 95% whatever the distribution.

    No interval where there are too few values for one (n < 6).

    Source: Conover 1999, "Practical nonparametric statistics", 3.2.
    """
    from scipy.special import bdtr

    found = np.sort(_sound(values))
    median, n = float(np.median(found)), len(found)
    tail = bdtr(np.arange(n), n, 0.5)  # P(at most k of n values lie below the median)
    below = int((tail <= (1 - LEVEL) / 2).sum())
    if below == 0:
        return Interval(median, None, None)
    return Interval(median, float(found[below - 1]), float(found[n - below]))


def _sound(values: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    if not found.size:
        raise ValueError("no values: expected at least one")
    return found

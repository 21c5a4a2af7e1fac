"""Means over prompts with bootstrap intervals; of differences, paired within each prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "Summary", "resampled"]

DRAWS = 2000
ENDS = (2.5, 97.5)
FEWEST = 8  # prompts; of fewer the percentile interval is far too narrow
AT_ONCE = 2**22  # counts in memory

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Of one or several quantities: [layers] each.

    Attributes:
        value: mean over prompts.
        low, high: ends of its 95% interval; NaN where there are fewer than `FEWEST` prompts.
        n: prompts that have the number.
    """

    value: Numbers
    low: Numbers
    high: Numbers
    n: NDArray[np.int64]


def resampled(values: Numbers, seed: int = 0) -> Summary:
    """Percentile bootstrap of the mean, whole prompts drawn with replacement.

    Every call with as many prompts draws the same ones, so that layers and views stay paired.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".

    Args:
        values: [prompts, layers]; NaN where a prompt has no number.
        seed: of the drawing.
    """
    there = ~np.isnan(values)
    n, known = there.sum(0), np.where(there, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = known.sum(0) / n
        means = _means(known, there, np.random.default_rng(seed))
    ends, enough = np.full((2, len(n)), np.nan), n >= FEWEST
    if enough.any():
        ends[:, enough] = np.nanpercentile(means[:, enough], ENDS, axis=0)
    return Summary(value, ends[0], ends[1], n)


def _means(known: Numbers, there: NDArray[np.bool_], rng: np.random.Generator) -> Numbers:
    """[DRAWS, layers] the mean of each redrawn set of prompts."""
    prompts, parts = len(known), []
    step = max(1, AT_ONCE // max(prompts, 1))
    for start in range(0, DRAWS, step):
        count = min(step, DRAWS - start)
        often = rng.multinomial(prompts, np.full(prompts, 1 / prompts), count).astype(np.float64)
        parts.append((often @ known) / (often @ there))
    return np.concatenate(parts)

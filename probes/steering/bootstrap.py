"""Means over prompts or tokens with intervals over groups, paired wherever the same weights are used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["DRAWS", "Mean", "drawn", "groups_of", "mean"]

DRAWS = 1000
ENDS = (0.025, 0.975)
Array = NDArray[np.float64]
Mean = tuple[Array, Array, Array]
"""Value, low and high end of its 95% percentile interval."""


def groups_of(data: xr.Dataset) -> list[str]:
    """What is resampled: each place's group, or its prompt where it has none."""
    prompts = json.loads(data.attrs["provenance"])["prompts"]
    groups = {one["name"]: one["fields"].get("group") for one in prompts}
    return [
        f"prompt {name}" if groups.get(name) is None else f"group {groups[name]}"
        for name in data["prompt"].values.tolist()
    ]


def drawn(groups: Sequence[str], seed: int) -> Array:
    """[draws, N] how often each place counts when whole groups are drawn with replacement."""
    _, code = np.unique(np.asarray(groups), return_inverse=True)
    count = int(code.max()) + 1
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(np.float64)
    found: Array = counts[:, code]
    return found


def mean(values: Array, weight: Array, times: Array) -> Mean:
    """The mean sum w v / sum w over the first axis, and its interval; NaN where nothing has a weight.

    Args:
        values: [N, ...]; what has a weight of 0 does not matter.
        weight: [N] tokens of each place, or 1 and 0.
        times: [draws, N] of `drawn`.
    """
    kept = np.where((weight > 0).reshape(-1, *[1] * (values.ndim - 1)), values, 0.0)
    flat = kept.reshape(len(kept), -1) * weight[:, None]
    if not weight.any():
        none = np.full(values.shape[1:], np.nan)
        return none, none.copy(), none.copy()
    total = times @ weight
    there = total > 0
    resampled = (times[there] @ flat) / total[there, None]
    low, high = np.quantile(resampled, ENDS, axis=0)
    shape = values.shape[1:]
    return (flat.sum(0) / weight.sum()).reshape(shape), low.reshape(shape), high.reshape(shape)

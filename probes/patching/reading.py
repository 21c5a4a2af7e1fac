"""What of a patching result is shown: one prompt or means over all, at one place or by role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.figures.reading import chosen, of_prompt
from workbench.report.intervals import student
from workbench.results import settings_of

__all__ = [
    "SITES",
    "Mean",
    "is_together",
    "mean_of",
    "of_place",
    "of_prompt",
    "place_of",
]

SITES = {
    "resid_post": "state",
    "resid_mid": "state before the MLP",
    "attn_out": "attention",
    "mlp_out": "MLP",
    "mlp_act": "MLP's neurons",
    "z": "heads' outputs (z)",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "pattern": "patterns",
}


@dataclass(frozen=True)
class Mean:
    """Means over groups of prompts, of any shape.

    Attributes:
        value: of each group's own mean; NaN where there is none.
        half: half of the 95% interval (Student's, over groups); NaN of fewer than two.
        n: groups.
    """

    value: NDArray[np.float64]
    half: NDArray[np.float64]
    n: NDArray[np.int64]


def mean_of(values: NDArray[Any], group: NDArray[Any]) -> Mean:
    """Means of [place, ...] over groups, which weigh equally however many places they have."""
    each = np.stack([_nanmean(values[group == name]) for name in np.unique(group)])
    count, mean = np.isfinite(each).sum(0), _nanmean(each)
    square = np.nansum((each - mean) ** 2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(square / (count - 1) / count)
    factors = {int(n): student(int(n)) or np.nan for n in np.unique(count)}
    t = np.vectorize(factors.__getitem__, otypes=[np.float64])(count)
    return Mean(mean, np.where(count > 1, t * spread, np.nan), count)


def _nanmean(values: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.nansum(values, 0) / np.isfinite(values).sum(0)
    return mean


def is_together(data: xr.Dataset) -> bool:
    """Whether the tokens of a prompt were patched together."""
    return bool(settings_of(data).get("scope", "together") == "together")


def of_place(
    data: xr.Dataset, prompt: str | int | None = None, position: int | None = None
) -> xr.Dataset:
    """One place of a prompt: its last where None, or where its tokens were patched together.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    return data.isel(place=place_of(data, prompt, position))


def place_of(data: xr.Dataset, prompt: str | int | None = None, position: int | None = None) -> int:
    """Index of the place that `of_place` gives."""
    name = chosen("prompt", prompt, data["prompt"].values)
    here = np.flatnonzero(data["prompt"].values == name)
    if position is None or is_together(data):
        return int(here[-1])
    positions = data["position"].values[here]
    wanted = chosen("position", position, positions)
    return int(here[np.flatnonzero(positions == wanted)[0]])

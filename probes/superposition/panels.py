"""What the layer axis shows of superposition statistics: quantiles beside their control, the histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from workbench.figures.panels import Heat, Line, Lines, Panel
from workbench.figures.scale import Scale

__all__ = ["facts", "panels"]

NAMES = {0.2: "20%", 0.5: "median", 0.8: "80%"}


def panels(data: xr.Dataset) -> Sequence[Panel]:
    """Lines with the 20% and 80% quantiles as their band; shares of neurons by product."""
    return [_lines(data), _histogram(data)]


def _lines(data: xr.Dataset) -> Lines:
    low, middle, high = (data["quantiles"].sel(quantile=q, drop=True) for q in NAMES)
    control = data["shuffled_quantiles"].sel(quantile=0.5, drop=True)
    return Lines(
        "product",
        "‖W_in‖ b_in, 20 to 80%",
        {"neurons": Line(middle, low, high), "biases shuffled": Line(control, control=True)},
    )


def _histogram(data: xr.Dataset) -> Heat:
    """Columns are bins, called by their lower ends; of the first, which has none, "less"."""
    share = (data["count"] / data.sizes["unit"]).assign_attrs(unit="share")
    digits = _digits(data["bin_high"].values[:2])
    names = ["less", *(f"{low:.{digits}f}" for low in data["bin_low"].values[1:].tolist())]
    values = xr.DataArray(
        share.values, {"layer": data["layer"], "product": names}, ("layer", "product")
    )
    most = float(np.max(share.values))
    scale = Scale("neurons", "share", "blue", 0.0, most or 1.0)
    return Heat("histogram", "neurons by ‖W_in‖ b_in", values.assign_attrs(share.attrs), scale)


def _digits(two: NDArray[np.float64]) -> int:
    """Decimals that tell one edge from the next."""
    return max(0, -math.floor(math.log10(float(two[1] - two[0]))))


def facts(data: xr.Dataset, layer: int) -> list[tuple[str, str]]:
    """Of one layer; nothing at the embedding."""
    if layer not in data["layer"].values:
        return []
    one = data.sel(layer=layer)
    found = [
        (f"‖W_in‖ b_in, {name}", f"{float(one['quantiles'].sel(quantile=q)):.4g}")
        for q, name in NAMES.items()
    ]
    control = float(one["shuffled_quantiles"].sel(quantile=0.5))
    return [
        *found,
        ("median, biases shuffled", f"{control:.4g}"),
        ("biases below 0", f"{100 * float(one['negative']):.1f}%"),
    ]

"""What the layer axis shows of superposition statistics: quantiles beside their control, the histogram."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

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
        "‖W_in‖ b_in, median and 20 to 80% of neurons",
        {"neurons": Line(middle, low, high), "biases shuffled": Line(control, control=True)},
    )


def _histogram(data: xr.Dataset) -> Heat:
    share = (data["count"] / data.sizes["unit"]).assign_attrs(unit="share of neurons")
    names = [f"< {value:.2g}" for value in data["bin_high"].values]
    names[-1] = f"≥ {data['bin_low'].values[-1]:.2g}"
    told = xr.DataArray(
        share.values, {"layer": data["layer"], "product": _distinct(names)}, ("layer", "product")
    )
    most = float(np.max(share.values))
    return Heat(
        "histogram",
        "neurons by ‖W_in‖ b_in",
        told.assign_attrs(share.attrs),
        Scale("share", "share of neurons", "blue", 0.0, most or 1.0),
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """Labels of bins so narrow that they read alike, numbered apart."""
    return [
        name if name not in names[:i] else f"{name} ({names[:i].count(name) + 1})"
        for i, name in enumerate(names)
    ]


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

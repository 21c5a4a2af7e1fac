"""What the layer axis shows of sparse probes: F1 of each feature, beside the baseline."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from workbench.figures.panels import Heat, Line, Lines, Panel
from workbench.figures.scale import Scale

__all__ = ["panels"]

MOST_LINES = 4


def panels(data: xr.Dataset) -> Sequence[Panel]:
    """Of the smallest k and the largest: lines with intervals for few features, a heat map for many."""
    ks = data["k"].values.tolist()
    found: list[Panel] = []
    for k in dict.fromkeys((ks[0], ks[-1])):
        of_k = data.sel(k=k)
        title = f"Held-out F1, {k} unit{'s' if k > 1 else ''}"
        few = data.sizes["feature"] <= MOST_LINES
        found.append(_lines(of_k, k, title) if few else _heat(of_k["f1"], f"f1-{k}", title))
    return found


def _lines(of_k: xr.Dataset, k: int, title: str) -> Lines:
    lines: dict[str, Line] = {}
    for feature in of_k["feature"].values.tolist():
        one = of_k.sel(feature=feature)
        lines[feature] = Line(one["f1"], one["f1_low"], one["f1_high"])
    if of_k.sizes["feature"] == 1:
        one = of_k.isel(feature=0)
        level = xr.full_like(one["f1"], float(one["all_positive"]))
        lines["all positive"] = Line(level, control=True)
        if one["control_f1"].notnull().any():
            lines["control task"] = Line(one["control_f1"], control=True)
    return Lines(f"f1-{k}", title, lines, ends=(0.0, 1.0))


def _heat(f1: xr.DataArray, name: str, title: str) -> Heat:
    return Heat(name, title, f1.transpose("layer", "feature"), Scale("F1", "F1", "blue", 0.0, 1.0))

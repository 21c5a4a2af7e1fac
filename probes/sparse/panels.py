"""What the layer axis shows of sparse probes: F1 of each feature, beside the baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from workbench.figures.panels import Line, Lines, Panel

__all__ = ["panels"]

MOST_LINES = 4


def panels(data: xr.Dataset) -> Sequence[Panel]:
    """Of the smallest k and the largest: lines with intervals, of the best few features by validation."""
    ks = data["k"].values.tolist()
    best = data["validation_f1"].max(("layer", "k")).values
    few = sorted(np.argsort(-best, kind="stable")[:MOST_LINES].tolist())
    more = f" ({MOST_LINES} of {len(best)})" if len(best) > MOST_LINES else ""
    return [
        _lines(data.sel(k=k).isel(feature=few), k, f"F1, {k} unit{'s' if k > 1 else ''}{more}")
        for k in dict.fromkeys((ks[0], ks[-1]))
    ]


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

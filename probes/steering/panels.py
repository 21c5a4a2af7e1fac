"""What the layer axis shows of steering: answers in class of prompts that lack it, and the control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from probes.steering.bootstrap import Mean, drawn, groups_of, mean
from workbench.figures.panels import Line, Lines, Panel

__all__ = ["facts", "means", "panels"]

MOST = 3  # strengths that have a panel
LACKS = 0
STEERED = "out of class, steered"


def means(data: xr.Dataset, name: str, label: int) -> Mean:
    """[layer, strength] mean of a number over the prompts of a class, with its interval over groups.

    The control's draws are averaged first.
    """
    values = data[name].mean("draw") if "draw" in data[name].dims else data[name]
    if "layer" in values.dims:
        values = values.transpose("place", "layer", "strength")
    weight = (data["label"].values == label).astype(np.float64)
    return mean(values.values.astype(np.float64), weight, drawn(groups_of(data), 0))


def panels(data: xr.Dataset) -> Sequence[Panel]:
    """A panel a strength, of the largest few: steered, the control, and the model as it is."""
    size = np.abs(data["strength"].values)
    return [_lines(data, at) for at in sorted(np.argsort(-size, kind="stable")[:MOST].tolist())]


def _lines(data: xr.Dataset, at: int) -> Lines:
    strength = float(data["strength"][at])
    lines = {STEERED: _line(data, "p_in", at, control=False)}
    if data.sizes.get("draw"):
        lines["random direction"] = _line(data, "random_p_in", at, control=True)
    clean = float(means(data, "clean_p_in", LACKS)[0])
    flat = xr.full_like(lines[STEERED].values, clean)
    lines["not steered"] = Line(flat, control=True)
    title = f"p(in class), strength {strength:g}"
    return Lines(f"steered-{at}", title, lines, ends=(0.0, 1.0))


def _line(data: xr.Dataset, name: str, at: int, *, control: bool) -> Line:
    value, low, high = (
        xr.DataArray(
            one[:, at], {"layer": data["layer"]}, ("layer",), attrs={"unit": "probability"}
        )
        for one in means(data, name, LACKS)
    )
    return Line(value, low, high, control=control)


def facts(data: xr.Dataset, layer: int) -> list[tuple[str, str]]:
    """Of one layer and each strength; nothing where it was not steered."""
    known = data["layer"].values.tolist()
    if layer not in known:
        return []
    norm, row = float(data["norm"].sel(layer=layer)), known.index(layer)
    found = [("norm of the direction", f"{norm:.4g}")]
    runs = {"p_in": "steered"}
    if data.sizes.get("draw"):
        runs["random_p_in"] = "random direction"
    for name, called in runs.items():
        value, low, high = means(data, name, LACKS)
        for at, strength in enumerate(data["strength"].values.tolist()):
            ends = f"{value[row, at]:.3f} ({low[row, at]:.3f} to {high[row, at]:.3f})"
            found.append((f"p(in class), strength {strength:g}, {called}", ends))
    return found

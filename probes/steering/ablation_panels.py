"""What the layer axis shows of a probe's ablation: the loss in class and out of it, beside the control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from probes.steering.bootstrap import Mean, drawn, groups_of, mean
from probes.steering.going_on import CLASSES
from workbench.figures.panels import Line, Lines, Panel

__all__ = ["effects", "facts", "panels"]

TITLES = {"in": "in class", "out": "out of class"}
UNIT = "nat / token"


def effects(data: xr.Dataset, which: str) -> Mapping[str, Mean]:
    """[layer] changes of the loss of a class, over all its tokens, with intervals over groups.

    Of the probe's units, of the control (its draws averaged), and of the first less the second: each
    draw of groups counts for all three, so that the difference is paired. Control and difference are
    not there without draws.
    """
    one = data.sel({"class": which})
    tokens, times = one["tokens"].values.astype(np.float64), drawn(groups_of(data), 0)
    clean = one["clean_loss"].values[:, None]
    own = one["loss"].transpose("place", "layer").values - clean
    values = {"effect": own}
    if data.sizes["draw"]:
        random = one["random_loss"].mean("draw").transpose("place", "layer").values - clean
        values |= {"control": random, "difference": own - random}
    return {name: mean(each, tokens, times) for name, each in values.items()}


def panels(data: xr.Dataset) -> Sequence[Panel]:
    """A panel of each class: the probe's units, and as many random ones."""
    return [_lines(data, which) for which in CLASSES]


def _lines(data: xr.Dataset, which: str) -> Lines:
    found = effects(data, which)
    lines = {"probe's units": _line(data, found["effect"], control=False)}
    if "control" in found:
        lines["as many random units"] = _line(data, found["control"], control=True)
    return Lines(f"loss-{which}", f"Δ loss {TITLES[which]}, {UNIT}", lines)


def _line(data: xr.Dataset, found: Mean, *, control: bool) -> Line:
    value, low, high = (
        xr.DataArray(one, {"layer": data["layer"]}, ("layer",), attrs={"unit": UNIT})
        for one in found
    )
    return Line(value, low, high, control=control)


def facts(data: xr.Dataset, layer: int) -> list[tuple[str, str]]:
    """Of one layer; nothing where nothing was ablated."""
    known = data["layer"].values.tolist()
    if layer not in known:
        return []
    row, found = known.index(layer), [("units", str(data["units"].sel(layer=layer).item()))]
    for which in CLASSES:
        for name, (value, low, high) in effects(data, which).items():
            ends = f"{value[row]:+.4f} ({low[row]:+.4f} to {high[row]:+.4f}) {UNIT}"
            found.append((f"Δ loss {TITLES[which]}, {name}", ends))
    return found

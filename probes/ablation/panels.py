"""Ablations on the layer axis: effects on score and loss, each beside its control at one scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from probes.ablation.rows import effects, settings_of, units_of
from workbench.figures.panels import Heat, Line, Lines, Panel
from workbench.figures.reading import of_prompt
from workbench.figures.scale import Scale
from workbench.report.intervals import mean_interval

__all__ = ["CONTROL", "METRICS", "grids", "labels_of", "of_prompt", "panels"]

METRICS = {
    "probability": "p(target)",
    "logprob": "log p(target)",
    "logit_difference": "target − foil",
    "kl": "KL from clean",
}
CONTROL = "random, same norm"
UNITS = {"loss": "nat per token"}


def labels_of(data: xr.Dataset) -> list[str]:
    """The compared field's value of each prompt; empty where nothing is compared."""
    if "label" not in data:
        return []
    names = data["label_name"].values.tolist()
    return [str(names[index]) for index in data["label"].values.tolist()]


def panels(data: xr.Dataset) -> list[Panel]:
    """The mean over the prompts of `data`: lines for layers, heat maps for heads and ranges.

    Where two values of a field are compared, heat maps have a third beside them: the second value's mean
    less the first's.
    """
    found = {
        name: values.assign_coords(unit=("place", units_of(data)))
        for name, values in effects(data).items()
    }
    what = {"score": METRICS[settings_of(data)["metric"]], "loss": "loss"}
    labels = np.array(labels_of(data))
    drawn: list[Panel] = []
    for name, said in what.items():
        own, control = found[name], found.get(f"random_{name}")
        if set(own.dims) == {"place", "layer"}:
            drawn.append(_lines(name, f"Δ {said}, {_unit(name, own)}", own, control, labels))
        else:
            drawn += grids(name, said, _averaged(name, own, control, labels), _unit(name, own))
    return drawn


def _unit(name: str, values: xr.DataArray) -> str:
    return UNITS.get(name, str(values.attrs["unit"]))


def _lines(
    name: str,
    title: str,
    own: xr.DataArray,
    control: xr.DataArray | None,
    labels: NDArray[np.str_],
) -> Lines:
    if len(set(labels.tolist())) > 1:
        lines = {one: _line(own.isel(place=labels == one)) for one in sorted(set(labels.tolist()))}
    else:
        lines = {"ablated": _line(own)}
    if control is not None:
        lines[CONTROL] = _line(control, control=True)
    return Lines(name, title, lines)


def _line(values: xr.DataArray, *, control: bool = False) -> Line:
    """The mean over groups of prompts at each layer, with Student's interval where there are several."""
    frame = pd.DataFrame(values.transpose("place", "layer").values)
    columns = frame.groupby(values["unit"].values).mean().to_numpy().T
    summaries = [
        mean_interval(c[np.isfinite(c)]) if np.isfinite(c).any() else None for c in columns
    ]
    middle, low, high = (
        xr.DataArray(
            [np.nan if one is None else getattr(one, part) for one in summaries],
            {"layer": values["layer"]},
            attrs=values.attrs,
        )
        for part in ("value", "low", "high")
    )
    if columns.shape[1] < 2:
        return Line(middle, control=control)
    return Line(middle, low.astype(float), high.astype(float), control)


def _averaged(
    name: str, own: xr.DataArray, control: xr.DataArray | None, labels: NDArray[np.str_]
) -> dict[str, xr.DataArray]:
    """The effect, its control, and the difference of two values of the compared field."""
    found = {name: own.mean("place")}
    if control is not None:
        found[f"random_{name}"] = control.mean("place")
    if len(values := sorted(set(labels.tolist()))) == 2:
        first, second = (own.isel(place=labels == one).mean("place") for one in values)
        found[f"difference_{name}"] = second - first
    return found


def grids(name: str, said: str, shown: Mapping[str, xr.DataArray], unit: str) -> list[Panel]:
    """Heat maps of layers by heads or last layers, all at one scale, named by the keys of `shown`."""
    end = max(float(np.nanmax(np.abs(values), initial=0.0)) for values in shown.values()) or 1.0
    scale = Scale(f"Δ {said}", unit, "signed", -end, end)
    titles = {name: name, f"random_{name}": "its control", f"difference_{name}": "difference"}
    return [
        Heat(key, titles[key], values.transpose("layer", ...), scale)
        for key, values in shown.items()
    ]

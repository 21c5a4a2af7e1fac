"""What any result shows of itself along the layers, where its instrument says nothing better."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from workbench.figures.panels import Heat, Line, Lines, Panel
from workbench.figures.reading import chosen
from workbench.figures.scale import Scale

__all__ = ["at_place", "facts", "generic_panels"]

MOST_LINES = 4  # of one unit in one panel
MOST_COLUMNS = 512


def at_place(
    data: xr.Dataset,
    prompt: str | int | None = None,
    position: int | None = None,
    site: str | None = None,
) -> xr.Dataset:
    """The part of a result that speaks of one place: no dim `place`, `prompt` or `site` is left.

    The first prompt, its last position that was read, and the first site where they are None or, of
    the site, where the result has no such site.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    if "site" in data.dims:
        known = data["site"].values.tolist()
        data = data.sel(site=site if site in known else known[0])
    if "prompt" in data.dims:
        data = data.sel(prompt=chosen("prompt", prompt, data["prompt"].values))
    if "place" not in data.dims:
        return data
    here = np.flatnonzero(data["prompt"].values == chosen("prompt", prompt, data["prompt"].values))
    positions = data["position"].values[here]
    wanted = chosen("position", position, positions) if position is not None else positions[-1]
    return data.isel(place=int(here[np.flatnonzero(positions == wanted)[0]]))


def generic_panels(data: xr.Dataset) -> list[Panel]:
    """Panels of a result at one place (see `at_place`): lines by unit, a heat map for a second axis."""
    lines: dict[str, dict[str, Line]] = {}
    heats: list[Panel] = []
    for name, values in _numbers(data).items():
        if values.dims == ("layer",):
            of_unit = lines.setdefault(values.attrs["unit"], {})
            if len(of_unit) < MOST_LINES:
                of_unit[name] = Line(values)
        elif len(values.dims) == 2 and values.size <= MOST_COLUMNS * values.sizes["layer"]:
            heats.append(_heat(name, values))
    stacks = [
        Lines("-".join(of_unit), f"{', '.join(of_unit)}, {unit}", of_unit)
        for unit, of_unit in lines.items()
    ]
    return [*stacks, *heats]


def facts(data: xr.Dataset, layer: int) -> list[tuple[str, str]]:
    """Name and value with unit of every single number of one place at one layer."""
    here = (
        data.sel(layer=layer)
        if layer in data.coords.get("layer", ())
        else data.drop_dims("layer", errors="ignore")
    )
    return [
        (str(name).replace("_", " "), f"{values.item():.4g} {values.attrs['unit']}")
        for name, values in here.data_vars.items()
        if values.ndim == 0 and values.dtype.kind in "fiu" and np.isfinite(values.item())
    ]


def _numbers(data: xr.Dataset) -> Mapping[str, xr.DataArray]:
    return {
        str(name): values.transpose("layer", ...)
        for name, values in data.data_vars.items()
        if "layer" in values.dims and values.dtype.kind == "f" and values.notnull().any()
    }


def _heat(name: str, values: xr.DataArray) -> Heat:
    other = str(values.dims[1])
    if other not in values.coords:
        values = values.assign_coords({other: np.arange(values.sizes[other])})
    return Heat(name, f"{name} by {other}", values, _scale(name, values))


def _scale(name: str, values: xr.DataArray) -> Scale:
    """From the least to the largest value; symmetric about 0 where there are both signs."""
    low, high, unit = float(values.min()), float(values.max()), str(values.attrs["unit"])
    if low < 0 < high:
        end = max(-low, high)
        return Scale(name, unit, "signed", -end, end)
    return Scale(name, unit, "blue", low, high if high > low else low + 1)

"""A trace on the layer axis: the state's effects by position, and one token's effects by component."""

from __future__ import annotations

import xarray as xr

from probes.tracing.prompt_figure import scale_of
from probes.tracing.reading import SITES, half_width, of_place, of_prompt
from workbench.figures.panels import Heat, Line, Lines, Panel

__all__ = ["panels"]


def panels(
    data: xr.Dataset,
    *,
    prompt: str | int | None = None,
    position: int | None = None,
    site: str | None = None,
) -> list[Panel]:
    """Effects by position, of `site` or of the first; and of each component at `position`.

    Intervals are over samples of noise. Components below the first block are left out.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    known = [str(name) for name in data["site"].values]
    shown = site if site is not None and site in known else known[0]
    place = of_place(data, prompt, position)
    unit = str(data["effect"].attrs["unit"])
    lines = {SITES[name]: _line(place.sel(site=name)) for name in known}
    return [_heat(of_prompt(data, prompt).sel(site=shown), shown, unit), _lines(lines, unit)]


def _heat(one: xr.Dataset, site: str, unit: str) -> Heat:
    values = one["effect"].transpose("layer", "position").dropna("layer", how="all")
    title = f"{SITES[site]}: effect by position"
    return Heat("by-position", title, values, scale_of(values, "effect", unit))


def _lines(lines: dict[str, Line], unit: str) -> Lines:
    return Lines("effect", f"effect, {unit}", lines)


def _line(place: xr.Dataset) -> Line:
    values = place["effect"].dropna("layer")
    half = half_width(place).sel(layer=values["layer"])
    if half.isnull().any():
        return Line(values)
    return Line(values, values - half, values + half)

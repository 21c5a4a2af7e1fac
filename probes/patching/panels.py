"""Patching on the layer axis: sites as lines, heads in heat maps, states by position."""

from __future__ import annotations

import numpy as np
import xarray as xr

from probes.patching.figures import scale_of
from probes.patching.reading import SITES, is_together, of_place, of_prompt
from workbench.figures.panels import Heat, Line, Lines, Panel

__all__ = ["panels"]


def panels(
    data: xr.Dataset, *, prompt: str | int | None = None, position: int | None = None
) -> list[Panel]:
    """Effects at one place, and of the first site also by position where tokens were patched singly.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    place, found = of_place(data, prompt, position), list[Panel]()
    unit = str(data["clean"].attrs["unit"])
    if "effect" in data:
        if not is_together(data):
            found.append(_by_position(of_prompt(data, prompt), unit))
        lines = {
            SITES[site]: Line(place["effect"].sel(site=site).dropna("layer"))
            for site in data["site"].values.tolist()
        }
        found.append(Lines("effect", f"effect, {unit}", lines))
    if "head_effect" in data:
        found += [_by_head(place, site, unit) for site in data["head_site"].values.tolist()]
    return found


def _by_position(one: xr.Dataset, unit: str) -> Heat:
    site = one["site"].values.tolist()[0]
    values = one["effect"].sel(site=site).drop_vars("site").transpose("layer", "place")
    values = values.rename(place="position") if "position" not in values.coords else values
    values = values.swap_dims(place="position").dropna("layer", how="all")
    scale = scale_of([values.values], "effect", unit)
    return Heat("by-position", f"{SITES[site]}: effect by position", values, scale)


def _by_head(place: xr.Dataset, site: str, unit: str) -> Heat:
    values = place["head_effect"].sel(head_site=site).transpose("layer", "head")
    values = values.dropna("layer", how="all")
    values = values.isel(head=np.flatnonzero(values.notnull().any("layer")))
    return Heat(f"heads-{site}", f"{site} by head", values, scale_of([values], "effect", unit))

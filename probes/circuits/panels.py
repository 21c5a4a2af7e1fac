"""Attribution patching on the layer axis, and what it says of one cell."""

from __future__ import annotations

import math

import xarray as xr

from probes.circuits.maps import scale_of
from probes.circuits.reading import SITES, of_prompt
from workbench.figures.generic import at_place
from workbench.figures.panels import Heat, Line, Lines, Panel

__all__ = ["facts", "panels"]


def panels(
    data: xr.Dataset, *, prompt: str | int | None = None, position: int | None = None
) -> list[Panel]:
    """At one position, effects by layer; of each site, effects by position; heads at the position.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    one, here = of_prompt(data, prompt), at_place(data, prompt, position)
    found: list[Panel] = []
    if "effect" in one:
        found.append(_lines(data, prompt, position))
        scale = scale_of([one["effect"]], str(one["effect"].attrs["unit"]))
        for site in one["site"].values.tolist():
            cells = one["effect"].sel(site=site).transpose("layer", "position")
            found.append(Heat(site, f"{SITES[site]}, approximate", cells, scale))
    if "head_effect" in here:
        heads = here["head_effect"].transpose("layer", "head")
        found.append(
            Heat("heads", "heads, approximate", heads, scale_of([heads], str(heads.attrs["unit"])))
        )
    return found


def _lines(data: xr.Dataset, prompt: str | int | None, position: int | None) -> Lines:
    """Approximate and exact effects of each site at one position."""
    lines = {}
    for site in data["site"].values.tolist():
        here = at_place(data, prompt, position, site)
        lines[SITES[site]] = Line(here["effect"])
        if "exact_effect" in here:
            lines[f"{SITES[site]}, exact"] = Line(here["exact_effect"])
    unit = data["effect"].attrs["unit"]
    return Lines("effect", f"effect, approximate, {unit}", lines)


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None, position: int | None = None
) -> list[tuple[str, str]]:
    """Approximate and exact effects at one cell, and how well the first rank the second."""
    found = []
    for site in data["site"].values.tolist() if "effect" in data else []:
        here = at_place(data, prompt, position, site)
        if layer not in here["layer"].values or math.isnan(here["effect"].sel(layer=layer)):
            continue
        unit = here["effect"].attrs["unit"]
        said = f"{float(here['effect'].sel(layer=layer)):+.3g} {unit}"
        if "exact_effect" in here:
            exact = float(here["exact_effect"].sel(layer=layer))
            said += f"; exact {exact:+.3g}"
            if math.isfinite(rank := float(here["rank_correlation"])):
                said += f"; rank correlation {rank:.2f}"
        found.append((f"{SITES[site]}, approximate effect", said))
    return found

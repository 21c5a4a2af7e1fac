"""What a patching result says of one cell, in words."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from probes.patching.headings import which
from probes.patching.reading import SITES, of_place
from probes.tracing.headings import scored
from workbench.figures import visible
from workbench.figures.reading import chosen, words
from workbench.results import settings_of

__all__ = ["facts"]

HEADS = 3
Facts = list[tuple[str, str]]


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None, position: int | None = None
) -> Facts:
    """The runs' scores, the effect of each site, and the heads of the largest effects.

    Raises:
        ResultError: the result has no such prompt, position or layer.
    """
    place = of_place(data, prompt, position)
    cell = place.sel(layer=chosen("layer", layer, place["layer"].values))
    settings, unit = settings_of(data), str(data["clean"].attrs["unit"])
    target = visible(str(words(place, place["target_id"]))) if place["target_id"] >= 0 else "target"
    runs = f"clean {float(place['clean']):.3g}, corrupted {float(place['corrupted']):.3g}"
    found = [
        (f"{settings['direction']}, {scored(settings, target)}", f"{runs} {unit}"),
        ("put in", which(data, place)),
        ("total effect", f"{float(place['total']):+.3g} {unit}"),
    ]
    if "effect" in data:
        found += [fact for site in data["site"].values.tolist() for fact in _site(cell, site, unit)]
    if "head_effect" in data:
        sites = data["head_site"].values.tolist()
        found += [fact for site in sites for fact in _heads(cell, site, unit)]
    return found


def _site(cell: xr.Dataset, site: str, unit: str) -> Facts:
    own = cell.sel(site=site)
    effect, share = float(own["effect"]), float(own["normalised"])
    if math.isnan(effect):
        return []
    scaled = "" if math.isnan(share) else f", normalised {share:.3g}"
    return [(f"effect of {SITES[site]}", f"{effect:+.3g} {unit}{scaled}")]


def _heads(cell: xr.Dataset, site: str, unit: str) -> Facts:
    values = cell["head_effect"].sel(head_site=site).dropna("head")
    if not values.size:
        return []
    order = np.argsort(-np.abs(values.values), kind="stable")[:HEADS]
    said = ", ".join(f"{int(values['head'][i])}: {float(values[i]):+.3g}" for i in order)
    return [(f"largest heads, {site}", f"{said} {unit}")]

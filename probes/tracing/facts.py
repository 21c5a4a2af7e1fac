"""What a causal trace says of one cell, in words."""

from __future__ import annotations

import math

import xarray as xr

from probes.causal.roles import ROLES
from probes.tracing.headings import corrupted_by, named, scored
from probes.tracing.reading import SITES, half_width, of_place
from workbench.figures import visible
from workbench.figures.reading import chosen, words
from workbench.results import settings_of

__all__ = ["facts"]

Facts = list[tuple[str, str]]


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None, position: int | None = None
) -> Facts:
    """The runs' scores, then of each component the effect with its interval, and the role.

    Raises:
        ResultError: the result has no such prompt, position or layer.
    """
    place = of_place(data, prompt, position)
    cell = place.sel(layer=chosen("layer", layer, place["layer"].values))
    settings, unit = settings_of(data), str(data["effect"].attrs["unit"])
    target, foil = (named(place, place, role) for role in ("target", "foil"))
    runs = f"clean {float(place['clean']):.3g}, corrupted {float(place['corrupted'].mean()):.3g}"
    found = [
        (f"{settings['direction']}, {scored(settings, target, foil)}", f"{runs} {unit}"),
        ("corrupted by", corrupted_by(settings)),
        ("total effect", f"{float(place['total']):+.3g} {unit}"),
        *(fact for site in data["site"].values.tolist() for fact in _effect(cell, site, unit)),
    ]
    return [*found, *_role(place), *_answer(place, target)]


def _effect(cell: xr.Dataset, site: str, unit: str) -> Facts:
    own = cell.sel(site=site)
    effect, half, share = (
        float(value) for value in (own["effect"], half_width(own), own["normalised"])
    )
    if math.isnan(effect):
        return []
    ends = "" if math.isnan(half) else f" ({effect - half:+.3g} to {effect + half:+.3g})"
    scaled = "" if math.isnan(share) else f", normalised {share:.3g}"
    return [(f"effect of {SITES[site]}", f"{effect:+.3g}{ends} {unit}{scaled}")]


def _role(place: xr.Dataset) -> Facts:
    role = int(place["role"])
    return [("role", ROLES[role].replace("_", " "))] if role >= 0 else []


def _answer(place: xr.Dataset, target: str) -> Facts:
    """Where the model does not answer with the target, what it answers with."""
    if int(place["correct"]) != 0:
        return []
    return [
        ("clean run's top token", f"{visible(str(words(place, place['top_id'])))}, not {target}")
    ]

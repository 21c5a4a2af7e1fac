"""What a direct-attribution result says of one cell, in words."""

from __future__ import annotations

import math

import xarray as xr

from lenses.attribution.words import NAMES, attributed
from workbench.figures.generic import at_place
from workbench.figures.reading import chosen

__all__ = ["facts"]

HEADS = 3


def facts(
    data: xr.Dataset,
    *,
    layer: int,
    prompt: str | int | None = None,
    position: int | None = None,
) -> list[tuple[str, str]]:
    """What is attributed, the layer's terms, its largest heads, the logit and the residual.

    Raises:
        ResultError: the result has no such prompt, position or layer.
    """
    place = at_place(data, prompt, position)
    cell = place.sel(layer=chosen("layer", layer, place["layer"].values))
    found = [("attributed", attributed(place))]
    for name in cell["component"].values.tolist():
        found += _number(f"{NAMES[name]} adds", float(cell["contribution"].sel(component=name)))
    biases = float(place["norm_bias"] + place["unembed_bias"])
    found += [*_heads(cell), *_number("biases of the last step", biases)]
    found += _number("logit", float(place["logit"]))
    return [*found, ("sum of terms less logit", f"{float(place['residual']):+.1e} logit")]


def _heads(cell: xr.Dataset) -> list[tuple[str, str]]:
    if "head_contribution" not in cell or cell["head_contribution"].isnull().any():
        return []
    values = cell["head_contribution"]
    order = abs(values).argsort().values[::-1][:HEADS]
    said = ", ".join(f"{values['head'].values[i]}: {float(values[i]):+.3f}" for i in order)
    return [("largest heads", f"{said} logit")]


def _number(name: str, value: float) -> list[tuple[str, str]]:
    return [] if math.isnan(value) else [(name, f"{value:+.3f} logit")]

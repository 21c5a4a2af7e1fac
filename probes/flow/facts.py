"""What layers as a flow say of one cell, each number beside the twin's."""

from __future__ import annotations

import math
from collections.abc import Iterator

import xarray as xr

from probes.flow.orders import LABELS
from probes.flow.rows import limit
from workbench.figures.generic import at_place
from workbench.figures.reading import chosen

__all__ = ["facts"]

NAMES = {
    "step": "step |dx|",
    "turn": "turn",
    "straightness": "straightness so far",
    "integrated_defect": "block from its flow (dopri5)",
    "limit_error": "limit from dopri5",
    "bracket": "bracket [F, G]",
    "swap": "attention, MLP less MLP, attention",
}


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None, position: int | None = None
) -> list[tuple[str, str]]:
    """Of one layer and token, and of its prompt; nothing at the embedding, which is no step.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    place = at_place(data, prompt, position)
    if layer == 0:
        return []
    here = place.sel(layer=chosen("layer", layer, place["layer"].values))
    found = [
        (name, _said(here[key])) for key, name in NAMES.items() if key in here and _known(here[key])
    ]
    if "ode_defect" in here:
        found += _by(here["ode_defect"], "substeps", f"N = {{}} from N = {limit(here)}")
    if "stretch" in here:
        found += _by(here["stretch"], "exponent", "log stretch {}")
        found += _by(here["exponents"], "exponent", "exponent {}, all layers")
    if "loss" in here:
        found.append(("loss of the prompt", _said(here["loss"])))
        found += list(_orders(here))
    return found


def _known(values: xr.DataArray) -> bool:
    return math.isfinite(float(values.sel(view="model")))


def _by(values: xr.DataArray, axis: str, name: str) -> list[tuple[str, str]]:
    coordinates = values[axis].values.tolist()
    return [(name.format(one), _said(values.sel({axis: one}))) for one in coordinates]


def _orders(here: xr.Dataset) -> Iterator[tuple[str, str]]:
    for order in here["order"].values.tolist():
        one = here.sel(order=order)
        single, every = _said(one["layer_loss_change"], "+"), _said(one["loss_change"], "+")
        pushed = float(one["random_change"].sel(view="model"))
        yield f"Δ loss, {LABELS[order]}: here", f"{single}; random push {pushed:+.3g}"
        yield f"Δ loss, {LABELS[order]}: everywhere", every


def _said(values: xr.DataArray, sign: str = "") -> str:
    """The model's number with its unit, and the twin's."""
    own = format(float(values.sel(view="model")), f"{sign}.3g")
    said = f"{own} {values.attrs['unit']}"
    if "random" not in values["view"].values:
        return said
    return f"{said} (twin {format(float(values.sel(view='random')), f'{sign}.3g')})"

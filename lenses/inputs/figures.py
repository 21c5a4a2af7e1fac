"""Figures of input attribution: key tokens by layer for one query, and its panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from lenses.attention.token_axes import coloured, heading, labels, ticks
from workbench.figures import box, layer_name, markup, themed, visible
from workbench.figures.generic import at_place
from workbench.figures.panels import Heat, Panel
from workbench.figures.reading import chosen, words
from workbench.figures.scale import Scale
from workbench.figures.theme import MONOSPACE

__all__ = ["TITLES", "facts", "figure", "panels"]

TITLES = {
    "alti_rollout": "ALTI, rolled out to the input",
    "alti": "ALTI of each layer",
    "rollout": "attention rollout",
    "value_norm": "norm of what is moved, sum over heads",
    "raw": "attention, mean of heads",
    "gradient_x_input": "gradient x input",
    "integrated_gradients": "integrated gradients",
}
MARGIN = {"l": 64, "r": 96, "t": 128, "b": 20}
ROW = 26  # pixels of a layer


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    method: str | None = None,
    head: int | None = None,
) -> go.Figure:
    """Key tokens by layer for the query at the selected position; the last that was read where None.

    A cell's customdata is "layer", which is what a click needs: its column is a key, no query.

    Args:
        method: the first that the result has, of ALTI's rollout, ALTI, rollout, ..., where None.
        head: of raw and value_norm; the mean (raw) or the sum over heads where None.

    Raises:
        ResultError: the result has no such prompt, position, method or head.
    """
    look = themed(theme)
    one = at_place(data, prompt, None if selected is None else selected[1])
    name = _method(one, method)
    values = _by_layer(one, name, head)
    there = one["key_id"].values >= 0
    values = values.isel(key=there)
    tokens = words(one, one["key_id"])[there].tolist()
    layers = values["layer"].values.tolist()
    heat = go.Heatmap(
        z=values.values,
        x=list(range(len(tokens))),
        y=list(range(len(layers))),
        xgap=1,
        ygap=1,
        **coloured(_scale(values), look),
        hovertext=_hover(values.values, layers, tokens),
        hovertemplate="%{hovertext}<extra></extra>",
        customdata=[[str(layer)] * len(tokens) for layer in layers],
    )
    query = f"{visible(str(one['token'].item()))} {int(one['position'])}"
    above = ticks(labels(range(len(tokens)), tokens)) | {"tickangle": -60, "side": "top"}
    width = min(900, max(380, 30 * len(tokens)))
    row = [layers.index(selected[0])] if selected and selected[0] in layers else []
    layout = look.layout(
        xaxis=look.axis("key", **above, tickfont={"family": MONOSPACE, "size": 11}),
        yaxis=look.axis("layer", **ticks([layer_name(layer) for layer in layers])),
        annotations=[heading(f"{_title(name, head)}, at {query}", look, MARGIN["t"] - 24)],
        shapes=[box([0, len(tokens) - 1], row, look, width=1.5)] if row else [],
        margin=MARGIN,
        width=width + MARGIN["l"] + MARGIN["r"],
        height=max(170, min(ROW * len(layers), 640)) + MARGIN["t"] + MARGIN["b"],
    )
    return go.Figure(heat, layout)


def panels(
    data: xr.Dataset, *, prompt: str | int | None = None, position: int | None = None
) -> Sequence[Panel]:
    """For the query at `position`, what each key brings by layer: up to two methods."""
    one = at_place(data, prompt, position)
    one = one.isel(key=np.flatnonzero(one["key_id"].values >= 0))
    found: list[Panel] = []
    for name in TITLES:
        if name in one and "layer" in one[name].dims and len(found) < 2:
            values = _by_layer(one, name, None).rename(key="position")
            values = values.assign_coords(position=np.arange(values.sizes["position"]))
            title = f"{name.replace('_', ' ')} by key"
            found.append(Heat(name, title, values, _scale(values)))
    return found


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None, position: int | None = None
) -> list[tuple[str, str]]:
    """Of each method, the key that brings most at this layer; gradients are of every layer."""
    one = at_place(data, prompt, position)
    tokens = words(one, one["key_id"])
    found = []
    for name in TITLES:
        if name not in one or not bool(one[name].notnull().any()):
            continue
        values = _by_layer(one, name, None)
        wanted = layer if "layer" in one[name].dims else 0
        if wanted in values["layer"]:
            brought = values.sel(layer=wanted)
            key = int(brought.argmax("key"))
            said = f"{visible(str(tokens[key]))} {key}: {float(brought[key]):.3g}"
            found.append((f"most by {name.replace('_', ' ')}", f"{said} {brought.attrs['unit']}"))
    return found


def _method(one: xr.Dataset, asked: str | None) -> str:
    known = [name for name in TITLES if name in one and bool(one[name].notnull().any())]
    return str(chosen("method", asked, np.array(known)))


def _title(name: str, head: int | None) -> str:
    return TITLES[name] if head is None else f"{name.replace('_', ' ')} of head {head}"


def _by_layer(one: xr.Dataset, name: str, head: int | None) -> xr.DataArray:
    """(layer, key); gradients stand at the embedding, which is layer 0."""
    values = one[name]
    if "head" in values.dims and head is not None:
        values = values.sel(head=chosen("head", head, values["head"].values))
    elif "head" in values.dims:
        together = values.mean if name == "raw" else values.sum
        values = together("head", skipna=False, keep_attrs=True)
    if "layer" not in values.dims:
        values = values.expand_dims(layer=[0])
    return values.transpose("layer", "key")


def _scale(values: xr.DataArray) -> Scale:
    high, unit = float(abs(values).max()) or 1.0, str(values.attrs["unit"])
    if values.attrs["unit"] == "logit":
        return Scale("weight", unit, "signed", -high, high)
    return Scale("weight", unit, "blue", 0.0, high)


def _hover(values: Any, layers: Sequence[int], tokens: Sequence[object]) -> list[list[str]]:
    shown = [f"{i} {markup(visible(str(token)))}" for i, token in enumerate(tokens)]
    return [
        [
            f"layer {layer_name(layer)}<br>key {k}<br>{v:.3g}"
            for k, v in zip(shown, line, strict=True)
        ]
        for layer, line in zip(layers, values.tolist(), strict=True)
    ]

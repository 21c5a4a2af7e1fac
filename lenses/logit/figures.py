"""Figures of a logit-lens result: the grid of cells, the strip, one cell's candidates, curves.

Every function takes the result's dataset, never a model. They raise `ResultError`, a ValueError of
one line, when asked for a prompt, site, layer, position or colour that the result does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import xarray as xr
from xarray import ufuncs

from lenses.logit.grid import STATES
from lenses.logit.reading import heading
from workbench.errors import ResultError
from workbench.figures import (
    Cells,
    Curves,
    Theme,
    box,
    layer_curves,
    layer_grid,
    layer_mark,
    layer_strip,
    markup,
    page,
    rows,
    themed,
    token_bars,
    visible,
)
from workbench.figures.quantity import (
    Quantity,
    exp,
    from_zero,
    unit_interval,
    up_to_ln2,
    up_to_zero,
    whole,
)
from workbench.figures.reading import Pick, chosen, picked, reading, words

__all__ = ["COLOURS", "candidates", "cells", "curves", "figure", "probabilities", "strip"]

HOVERED = 3


COLOURS: Mapping[str, Quantity] = {
    "probability": Quantity(
        "p(top-1)",
        "probability",
        "blue",
        lambda one: exp(one["top_logprob"].isel(k=0)),
        unit_interval,
    ),
    "target": Quantity(
        "log p(target)", "nat", "green", lambda one: one["target_logprob"], up_to_zero
    ),
    "rank": Quantity(
        "rank of target",
        "1 = best",
        "green",
        lambda one: ufuncs.log10(one["target_rank"]),
        from_zero,
        logarithmic=True,
        reverse=True,
    ),
    "entropy": Quantity("entropy", "nat", "purple", lambda one: one["entropy"], from_zero),
    "kl": Quantity("KL(final || layer)", "nat", "orange", lambda one: one["kl"], from_zero),
    "js": Quantity("JS(final, layer)", "nat", "orange", lambda one: one["js"], up_to_ln2),
    "norm": Quantity(
        "norm", "L2", "purple", lambda one: ufuncs.log10(one["norm"]), whole, logarithmic=True
    ),
}


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    colour: str = "probability",
    prompt: str | int | None = None,
    site: str | None = None,
    layers: Pick = None,
    positions: Pick = None,
    selected: tuple[int, int] | None = None,
) -> go.Figure:
    """The top token of each layer and position as a grid of coloured cells.

    A cell whose token is the target is written in bold. `selected`, a (layer, position), is boxed.
    By default at most 25 layers and 16 positions are drawn, which stay readable on paper: the
    page of the selected position, or the last one; the axis says which.

    Args:
        data: a result's dataset.
        theme: "light" or "dark".
        colour: a key of `COLOURS`.
        prompt: id of the prompt; the first one where None.
        site: site read; the first one where None.
        layers: layers to draw, 0 = embedding.
        positions: positions to draw, counting the beginning-of-sequence token.
        selected: the (layer, position) to mark.

    Raises:
        ResultError: the result does not hold what is asked for.
    """
    values = _coloured(reading(data, prompt, site), colour)
    shown = cells(
        data,
        colour=colour,
        prompt=prompt,
        site=site,
        layers=layers,
        positions=positions,
        selected=selected,
    )
    look = themed(theme)
    drawn = layer_grid(shown, COLOURS[colour].scale(values), look)
    if (lens := heading(data)) is not None:
        drawn.layout.yaxis.title.text = markup(f"layer, read with {lens}")
    if selected is not None:
        drawn.add_shape(_box(shown.values, selected, look))
    return drawn


def cells(
    data: xr.Dataset,
    *,
    colour: str = "probability",
    prompt: str | int | None = None,
    site: str | None = None,
    layers: Pick = None,
    positions: Pick = None,
    selected: tuple[int, int] | None = None,
) -> Cells:
    """What `figure` draws, as arrays with dims (layer, position); arguments and errors are its.

    A norm taken anew makes even a negligible contribution look confident, so cells of attn_out and
    mlp_out pale with the contribution's norm, against the position's largest one.
    """
    one = reading(data, prompt, site)
    window = _window(one, layers, positions, selected)
    values = _coloured(one, colour).sel(window)
    weight = None if one["site"] in STATES else _weight(one).sel(window)
    one = one.sel(window)
    ids = one["top_id"].transpose("layer", "position", "k")
    strong = (ids.isel(k=0) == one["target_id"]) & (one["target_id"] >= 0)
    return Cells(
        values=values,
        tokens=values.copy(data=words(one, ids.isel(k=0))),
        hover=values.copy(data=_hovers(one, values, COLOURS[colour])),
        strong=strong.transpose("layer", "position"),
        weight=weight,
    )


def strip(
    data: xr.Dataset,
    *,
    theme: str = "light",
    colour: str = "probability",
    prompt: str | int | None = None,
    site: str | None = None,
) -> go.Figure:
    """Every layer and position of one prompt as a small heat map without text."""
    values = _coloured(reading(data, prompt, site), colour)
    return layer_strip(values, COLOURS[colour].scale(values), themed(theme))


def candidates(
    data: xr.Dataset,
    layer: int,
    position: int,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    site: str | None = None,
) -> go.Figure:
    """The top-k tokens of one cell with their probabilities; target and foil are named."""
    one = reading(data, prompt, site)
    cell = one.sel(
        layer=chosen("layer", layer, one["layer"].values),
        position=chosen("position", position, one["position"].values),
    )
    if cell["top_id"].isel(k=0) < 0:
        raise ResultError(f"{one['site'].item()} has no layer {layer}: it begins with block 1")
    known = {"target": cell["target_id"], "foil": cell["foil_id"]}
    notes = {str(words(one, ids)): name for name, ids in known.items() if ids >= 0}
    top = words(one, cell["top_id"]).tolist()
    return token_bars(top, exp(cell["top_logprob"]).values.tolist(), themed(theme), notes=notes)


def curves(
    data: xr.Dataset,
    position: int,
    *,
    layer: int | None = None,
    theme: str = "light",
    prompt: str | int | None = None,
    site: str | None = None,
) -> go.Figure:
    """Probabilities and entropy of one position along the layers; `layer` is marked."""
    look = themed(theme)
    one = reading(data, prompt, site)
    column = one.sel(position=chosen("position", position, one["position"].values))
    stack = [Curves("probability", probabilities(column), (-0.03, 1.03))]
    if column["entropy"].notnull().any():
        high = math.ceil(float(column["entropy"].max())) or 1
        lines = {"entropy": column["entropy"]}
        stack.append(Curves("entropy, nat", lines, (-0.03 * high, 1.03 * high)))
    drawn = layer_curves(stack, look)
    if layer is not None:
        drawn.add_shape(layer_mark(layer, look))
    return drawn


def _coloured(one: xr.Dataset, colour: str) -> xr.DataArray:
    if colour not in COLOURS:
        raise ResultError(f"no colour {colour!r}: expected one of {', '.join(COLOURS)}")
    values = COLOURS[colour].values(one).transpose("layer", "position")
    if not values.notnull().any():
        why = "no target was given" if colour in ("target", "rank") else "it is not defined there"
        raise ResultError(f"no colour {colour!r} for {one['site'].item()}: {why}")
    return values


def _box(values: xr.DataArray, selected: tuple[int, int], look: Theme) -> dict[str, Any]:
    row, column = (
        _place(axis, at, values) for axis, at in zip(("layer", "position"), selected, strict=True)
    )
    return box([column], [row], look)


def _place(axis: str, at: int, values: xr.DataArray) -> int:
    known: list[int] = values[axis].values.tolist()
    return known.index(chosen(axis, at, values[axis].values))


def _window(
    one: xr.Dataset, layers: Pick, positions: Pick, selected: tuple[int, int] | None
) -> dict[str, list[int]]:
    known = one["layer"].values.tolist()
    places = one["position"].values.tolist()
    layer, position = selected or (known[-1], places[-1])
    for name, asked, those in (("layer", layer, known), ("position", position, places)):
        chosen(name, asked, np.asarray(those))
    shown = page(len(places), places.index(position))
    return {
        "layer": rows(known, layer) if layers is None else picked(one, "layer", layers),
        "position": places[shown.start : shown.stop]
        if positions is None
        else picked(one, "position", positions),
    }


def _weight(one: xr.Dataset) -> xr.DataArray:
    norm = one["norm"].transpose("layer", "position")
    return norm / norm.max("layer")


def _hovers(window: xr.Dataset, values: xr.DataArray, colour: Quantity) -> npt.NDArray[Any]:
    best = window.isel(k=slice(HOVERED)).transpose("layer", "position", "k", ...)
    top, chances = words(window, best["top_id"]), np.exp(best["top_logprob"].values)
    places = [
        f"position {position} {visible(str(token))}"
        for position, token in zip(window["position"].values, window["token"].values, strict=True)
    ]
    hovers = np.empty(values.shape, dtype=object)
    for row, column in np.ndindex(values.shape):
        number = colour.number(float(values.values[row, column]))
        lines = [f"layer {window['layer'].values[row]} · {places[column]}"]
        lines.append(f"{colour.label} {number} {colour.unit}")
        ranked = zip(top[row, column], chances[row, column], strict=True)
        lines += [f"{n}. {visible(text)} {p:.3f}" for n, (text, p) in enumerate(ranked, 1)]
        hovers[row, column] = "<br>".join(map(markup, lines))
    return hovers


def probabilities(column: xr.Dataset) -> dict[str, xr.DataArray]:
    """Probability of the top token, the target and the foil at one position, each with dim layer."""
    lines = {"p(top-1)": exp(column["top_logprob"].isel(k=0))}
    for name in ("target", "foil"):
        if column[f"{name}_id"] >= 0:
            text = visible(str(words(column, column[f"{name}_id"])))
            lines[f"p({name} {text})"] = exp(column[f"{name}_logprob"])
    return lines

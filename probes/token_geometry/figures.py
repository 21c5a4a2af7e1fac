"""The figure of token geometry: cosines of every layer in one order, and the sphere from two sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from probes.token_geometry.rows import of_prompt
from probes.token_geometry.sphere import controls, frames, points, sides
from workbench.figures import Theme, layer_name, markup, shorten, themed, visible
from workbench.figures.scale import Scale, colour_bar

__all__ = ["figure"]

COLUMNS, MOST_LAYERS = 7, 14
SIDE, GAP, HEADING = 112, 12, 26  # pixels of one heat map
LEFT, RIGHT, TOP = 104, 96, 66
BELOW = 586  # pixels of the sphere's part, its slider too
MOST_LABELS = 24
LETTERS = 10


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
) -> go.Figure:
    """Heat maps of cosines, one a layer; below, all tokens at one layer, which a slider moves.

    Tokens stand in the same order and have the same colour everywhere; the order is the frozen one.

    Args:
        selected: the (layer, position) to begin with, and to mark; the last layer where None.

    Raises:
        ResultError: no such prompt.
    """
    look = themed(theme)
    order_layer = _order_layer(data)
    one = of_prompt(data, prompt).sortby("order")
    one = one.isel(other=of_prompt(data, prompt)["order"].values.argsort())
    layers = one["layer"].values.tolist()
    shown = _spread(layers)
    start = selected[0] if selected and selected[0] in layers else layers[-1]
    views = one["view"].values.tolist()
    lines = -(-len(shown) // COLUMNS)
    width = LEFT + COLUMNS * (SIDE + GAP) + RIGHT
    height = TOP + len(views) * lines * (SIDE + HEADING) + BELOW
    room = (width - LEFT - RIGHT, height - TOP)
    layout = look.layout(
        width=width,
        height=height,
        margin={"l": LEFT, "r": RIGHT, "t": TOP, "b": 0},
        title=_title(one, shown, layers, order_layer, look),
        showlegend=False,
        hovermode="closest",
        annotations=[],
    )
    traces: list[Any] = []
    for row, view in enumerate(views):
        for number, layer in enumerate(shown):
            cell = one.sel(view=view, layer=layer)
            traces.append(_heat(cell, len(traces), look))
            down, column = divmod(number, COLUMNS)
            _place(layout, cell, len(traces), (row * lines + down, column), room, look, start)
    first = len(traces) + 1
    below = sides(first, views[-1], room, look)
    below["annotations"] += layout["annotations"]
    layout |= below | controls(one, start, len(traces), room, look)
    drawn = go.Figure([*traces, *points(one, start, first, look)], layout)
    drawn.frames = frames(one, len(traces))
    return drawn


def _order_layer(data: xr.Dataset) -> int:
    asked = json.loads(data.attrs["provenance"])["settings"]["order_layer"]
    return (data.sizes["layer"]) // 2 if asked is None else int(asked)


def _spread(layers: Sequence[int]) -> list[int]:
    """All layers, or as many as there is room for, the first and the last among them."""
    if len(layers) <= MOST_LAYERS:
        return list(layers)
    step = (len(layers) - 1) / (MOST_LAYERS - 1)
    return [layers[round(i * step)] for i in range(MOST_LAYERS)]


def _title(
    one: xr.Dataset, shown: Sequence[int], layers: Sequence[int], order_layer: int, look: Theme
) -> dict[str, Any]:
    few = "" if len(shown) == len(layers) else f"; {len(shown)} of {len(layers)} layers"
    text = (
        f"Cosines of states, tokens in one order: that of the {one['view'].values[-1]} states of layer "
        f"{layer_name(order_layer)}{few}<br>"
        f"<sub>above each: the mean over pairs of different tokens{_control(one)}</sub>"
    )
    place = {"x": 0.01, "y": 1, "yanchor": "top", "pad": {"t": 12}}
    return {"text": text, "font": {"size": 13, "color": look.ink}, **place}


def _control(one: xr.Dataset) -> str:
    return ", and in brackets the untrained twin's" if "mean_cosine_twin" in one else ""


def _labels(one: xr.Dataset) -> list[str]:
    tokens, positions = one["token"].values.tolist(), one["position"].values.tolist()
    return [
        f"{markup(shorten(visible(str(token)), LETTERS))} {position}"
        for token, position in zip(tokens, positions, strict=True)
    ]


def _heat(cell: xr.Dataset, number: int, look: Theme) -> go.Heatmap:
    """Of one view and layer. A cell's customdata is "layer position", which is what a click needs."""
    n, labels, layer = cell.sizes["place"], _labels(cell), int(cell["layer"])
    scale = Scale("cosine", "", "signed", -1, 1)
    bar = {"len": SIDE + 30, "lenmode": "pixels", "y": 1, "yanchor": "top"}
    clicks = {}
    if n <= MOST_LABELS:  # with more, tokens are clicked at in the sphere: a page has to load this
        clicks["customdata"] = [[f"{layer} {at}"] * n for at in cell["position"].values.tolist()]
    return go.Heatmap(
        z=cell["cosine"].transpose("place", "other").values.astype("float32"),
        x=labels,
        y=labels,
        xaxis=f"x{number + 1}",
        yaxis=f"y{number + 1}",
        zmin=scale.low,
        zmax=scale.high,
        colorscale=scale.colours(look),
        showscale=number == 0,
        colorbar=colour_bar(scale, look) | bar,
        hovertemplate=f"{cell['view'].item()}, layer {layer_name(layer)}<br>%{{y}}<br>%{{x}}<br>"
        "cosine %{z:.3f}<extra></extra>",
        **clicks,
    )


def _place(
    layout: dict[str, Any],
    cell: xr.Dataset,
    axis: int,
    at: tuple[int, int],
    room: tuple[int, int],
    look: Theme,
    start: int,
) -> None:
    """Axes and heading of the heat map on axes `axis`, in row and column `at`."""
    left = at[1] * (SIDE + GAP) / room[0]
    top = 1 - at[0] * (SIDE + HEADING) / room[1]
    across, down = [left, left + SIDE / room[0]], [top - SIDE / room[1], top]
    suffix = str(axis) if axis > 1 else ""
    n = cell.sizes["place"]
    named = at[1] == 0 and n <= MOST_LABELS
    marked = int(cell["layer"]) == start
    ticks: dict[str, Any] = {"showticklabels": named, "tickfont": {"size": 8}, "nticks": n}
    shared: dict[str, Any] = {
        "mirror": True,
        "showline": True,
        "linecolor": look.accent if marked else look.rule,
        "linewidth": 2 if marked else 1,
    }
    x_ends: dict[str, Any] = {"type": "category", "range": [-0.5, n - 0.5]}
    y_ends: dict[str, Any] = {"type": "category", "range": [n - 0.5, -0.5]}
    layout[f"xaxis{suffix}"] = look.axis(
        domain=across, anchor=f"y{axis}", showticklabels=False, **x_ends, **shared
    )
    layout[f"yaxis{suffix}"] = look.axis(
        domain=down, anchor=f"x{axis}", **ticks, **y_ends, **shared
    )
    layout["annotations"].append(_above(_mean(cell), across[0], top, "left", look))
    if at[1] == 0:
        layout["annotations"].append(_above(f"{cell['view'].item()} ", 0, top, "right", look))


def _above(text: str, x: float, y: float, end: str, look: Theme) -> dict[str, Any]:
    place = {"x": x, "y": y, "xref": "paper", "yref": "paper", "showarrow": False}
    font = {"size": 11, "color": look.ink}
    return {"text": text, "font": font, "xanchor": end, "yanchor": "bottom"} | place


def _mean(cell: xr.Dataset) -> str:
    first = cell.isel(place=0)
    twin = f" ({float(first['mean_cosine_twin']):.2f})" if "mean_cosine_twin" in first else ""
    layer = layer_name(int(cell["layer"]))
    return f"{layer}: {float(first['mean_cosine']):.2f}{twin}"

"""Heat maps over layers and tokens or heads, in rows and columns, on one colour scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures import Theme, box, layer_ticks, markup, shorten, visible
from workbench.figures.scale import Scale, colour_bar
from workbench.figures.theme import MONOSPACE

__all__ = ["Map", "drawn", "scale_of"]

CELL = 5, 34  # pixels of a token's column, least and most
WIDTH = 900  # pixels of all columns, where they fit
ROW = 7, 22  # pixels of a layer
HEIGHT = 420  # pixels of one heat map, where it fits
GAP = 36
LINE = 18  # pixels of a line of the heading
ABOVE = 32  # pixels of the heading beside its lines
TICKS = 92  # pixels of token texts
TITLE = 26
LETTERS = 11


@dataclass(frozen=True)
class Map:
    """One heat map: its title, and its values with dims (layer, position or head)."""

    title: str
    values: xr.DataArray


def scale_of(maps: Sequence[xr.DataArray], unit: str) -> Scale:
    """Symmetric about 0, up to the largest effect of any map."""
    ends = [float(np.nanmax(np.abs(each.values), initial=0.0)) for each in maps]
    end = max(ends, default=0.0) or 1.0
    return Scale("effect", unit, "signed", -end, end)


def drawn(
    rows: Sequence[Sequence[Map]],
    scale: Scale,
    one: xr.Dataset,
    heading: Sequence[str],
    selected: tuple[int, int] | None,
    look: Theme,
) -> go.Figure:
    """Maps row by row, layers upward in each.

    A cell's customdata is "layer position", or "layer" of heads, which is what a click needs.

    Args:
        one: the prompt (see `of_prompt`).
        heading: lines, the first of them bold.
        selected: the (layer, position) to frame.
    """
    columns = max(map(len, rows))
    most = max(each.values.shape[1] for row in rows for each in row)
    cell = min(max(WIDTH // (most * columns), CELL[0]), CELL[1])
    wide = max(cell * most, 250)
    layers = one["layer"].values.tolist()
    high = min(max(HEIGHT // len(layers), ROW[0]), ROW[1]) * len(layers)
    step = high + TICKS + TITLE
    total = step * len(rows)
    above = ABOVE + LINE * len(heading)
    layout = look.layout(
        width=columns * (wide + GAP) + 160,
        height=total + above + 10,
        margin={"l": 54, "r": 106, "t": above, "b": 10},
        annotations=[_heading(heading, look)],
        shapes=[],
    )
    span = columns * wide + (columns - 1) * GAP
    traces: list[go.Heatmap] = []
    for r, row in enumerate(rows):
        for c, each in enumerate(row):
            suffix = "" if not traces else str(len(traces) + 1)
            x = [c * (wide + GAP) / span, (c * (wide + GAP) + wide) / span]
            y = [1 - (r * step + TITLE + high) / total, 1 - (r * step + TITLE) / total]
            layout[f"xaxis{suffix}"] = look.axis(
                domain=x, anchor=f"y{suffix}", **_across(each, one, cell)
            )
            layout[f"yaxis{suffix}"] = _upward(layers, y, suffix, c, high, look)
            layout["annotations"].append(_title(each.title, x[0], y[1], look))
            layout["shapes"] += _mark(each, selected, suffix, look)
            traces.append(_heat(each, scale, one, suffix, not traces, look))
    return go.Figure(traces, layout)


def _upward(
    layers: list[int], domain: list[float], suffix: str, column: int, high: int, look: Theme
) -> dict[str, Any]:
    ends = [layers[0] - 0.5, layers[-1] + 0.5]
    ticks = layer_ticks(layers, max(3, high // 14))
    title = "layer" if column == 0 else ""
    return look.axis(title, domain=domain, anchor=f"x{suffix}", range=ends, **ticks)


def _across(each: Map, one: xr.Dataset, cell: int) -> dict[str, Any]:
    """Ticks of the tokens with their positions, at every n-th where they are many; or of the heads."""
    count, dim = each.values.shape[1], str(each.values.dims[1])
    ends = {"range": [-0.5, count - 0.5]}
    if dim == "head":
        return ends | {"tickvals": list(range(count)), "title": "head"}
    shown = range(0, count, max(1, -(-14 // cell)))
    tokens = one["token"].values
    texts = [
        f"{markup(shorten(visible(str(tokens[i])), LETTERS))} {one['position'].values[i]}"
        for i in shown
    ]
    font = {"family": MONOSPACE, "size": 11}
    return ends | {"tickvals": list(shown), "ticktext": texts, "tickangle": -60, "tickfont": font}


def _heat(
    each: Map, scale: Scale, one: xr.Dataset, suffix: str, first: bool, look: Theme
) -> go.Heatmap:
    values, dim = each.values, str(each.values.dims[1])
    layers, others = (values[name].values.tolist() for name in values.dims)
    texts = [f"head {i}" for i in others]
    if dim == "position":
        tokens = one["token"].values
        texts = [f"{p} {markup(visible(str(t)))}" for p, t in zip(others, tokens, strict=True)]
    return go.Heatmap(
        z=values.values.astype(np.float32),
        x=list(range(len(others))),
        y=layers,
        zmin=scale.low,
        zmax=scale.high,
        colorscale=scale.colours(look),
        showscale=first,
        colorbar=colour_bar(scale, look),
        xgap=1,
        ygap=1,
        hoverongaps=False,
        xaxis=f"x{suffix}",
        yaxis=f"y{suffix}",
        customdata=[[_where(layer, at, dim) for at in others] for layer in layers],
        text=[texts] * len(layers),
        hovertemplate="layer %{y}, %{text}<br>%{z:.3g} "
        + f"{scale.unit}<extra>{markup(each.title)}</extra>",
    )


def _where(layer: int, at: int, dim: str) -> str:
    """What a click on the cell selects."""
    return f"{layer} {at}" if dim == "position" else f"{layer}"


def _mark(
    each: Map, selected: tuple[int, int] | None, suffix: str, look: Theme
) -> list[dict[str, Any]]:
    if selected is None or each.values.dims[1] != "position":
        return []
    positions = each.values["position"].values.tolist()
    if selected[1] not in positions or selected[0] not in each.values["layer"].values:
        return []
    frame = box([positions.index(selected[1])], [selected[0]], look, width=2)
    return [frame | {"xref": f"x{suffix}", "yref": f"y{suffix}"}]


def _title(text: str, x: float, y: float, look: Theme) -> dict[str, Any]:
    return _note(f"<b>{markup(text)}</b>", x, y, look) | {
        "yshift": 3,
        "font": {"color": look.ink, "size": 12},
    }


def _heading(lines: Sequence[str], look: Theme) -> dict[str, Any]:
    first, *others = lines
    first = markup(shorten(first.replace("\n", "⏎"), 110))
    others = [markup(line) for line in others]
    text = "<br>".join([f"<b>{first}</b>", *others])
    return _note(text, 0, 1, look) | {"yshift": 16, "align": "left"}


def _note(text: str, x: float, y: float, look: Theme) -> dict[str, Any]:
    place = {
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
    }
    return {"text": text, "showarrow": False, "font": {"color": look.ink, "size": 12}} | place

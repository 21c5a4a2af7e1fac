"""Layer by position: the grid of cells with text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.axes import layer_name
from workbench.figures.scale import Scale, colour_bar
from workbench.figures.theme import MONOSPACE, Theme
from workbench.figures.tokens import markup, shorten, visible

__all__ = ["MARGIN", "Cells", "box", "layer_grid"]

_ROWS = 520  # pixels for all rows, where they fit
_ROW = 20, 40  # pixels, least and most
_LONGEST = 16  # letters of a token in a wide cell
MARGIN = {"l": 58, "r": 104, "t": 58, "b": 8}


@dataclass(frozen=True)
class Cells:
    """What a grid shows: four arrays with dims (layer, position) and equal coordinates.

    `values` are coloured and carry a `token` coordinate along position; `tokens` are written in
    the cells as they are (the grid makes them visible and escapes them); `hover` is ready-made
    markup; `strong` cells are written in bold. Cells without a value stay empty. `weight`, 0..1,
    pales the cells of little weight.
    """

    values: xr.DataArray
    tokens: xr.DataArray
    hover: xr.DataArray
    strong: xr.DataArray
    weight: xr.DataArray | None = None


def layer_grid(cells: Cells, scale: Scale, theme: Theme) -> go.Figure:
    """A grid of cells with text: a column a position, a row a layer, the embedding at the bottom.

    Rows and columns may skip layers and positions and are equally large: their coordinates on the
    axes are 0, 1, 2, ... A cell's customdata is "layer position", which is what a click needs.
    """
    layers, positions = _axes(cells.values)
    width = min(820, max(420, 110 * len(positions)))
    script = _Script.fitting(width / len(positions))
    traces = _traces(cells, scale, theme, script)
    layout = theme.layout(
        xaxis=_token_axis(cells.values, theme, script),
        yaxis=theme.axis(
            "layer",
            tickvals=list(range(len(layers))),
            ticktext=[layer_name(layer) for layer in layers],
            range=[-0.5, len(layers) - 0.5],
        ),
        margin=MARGIN,
        width=width + MARGIN["l"] + MARGIN["r"],
        height=_height(len(layers)) + MARGIN["t"] + MARGIN["b"],
    )
    return go.Figure(traces, layout)


def box(x: Sequence[float], y: Sequence[float], theme: Theme, width: float = 3) -> dict[str, Any]:
    """A rectangle around the cells from x[0] to x[-1] and from y[0] to y[-1], both included."""
    return {
        "type": "rect",
        "x0": x[0] - 0.5,
        "x1": x[-1] + 0.5,
        "y0": y[0] - 0.5,
        "y1": y[-1] + 0.5,
        "line": {"color": theme.accent, "width": width},
    }


@dataclass(frozen=True)
class _Script:
    """How large the letters of a cell are, in pixels, and how many fit."""

    size: int
    room: int

    @classmethod
    def fitting(cls, width: float) -> _Script:
        size = 13 if width >= 75 else 11
        letter = 0.64 * size  # a monospace letter is 0.6 wide, and cells may shrink a little
        return cls(size, min(int(width / letter), _LONGEST))


def _height(rows: int) -> int:
    least, most = _ROW
    return rows * min(max(_ROWS // rows, least), most)


def _axes(values: xr.DataArray) -> tuple[list[int], list[int]]:
    return values["layer"].values.tolist(), values["position"].values.tolist()


def _traces(cells: Cells, scale: Scale, theme: Theme, script: _Script) -> list[go.Heatmap]:
    traces = [_heat(cells, scale, theme)]
    if cells.weight is not None:
        traces.append(_veil(cells.weight, theme))
    # The top trace has the text, so that nothing lies over it.
    traces[-1].update(
        text=_written(cells, script.room),
        texttemplate="%{text}",
        textfont={"family": MONOSPACE, "size": script.size, "color": theme.cell_ink},
    )
    return traces


def _heat(cells: Cells, scale: Scale, theme: Theme) -> go.Heatmap:
    layers, positions = _axes(cells.values)
    return go.Heatmap(
        **_sheet(cells.values),
        zmin=scale.low,
        zmax=scale.high,
        colorscale=scale.colours(theme),
        colorbar=colour_bar(scale, theme),
        hovertext=cells.hover.values.tolist(),
        hovertemplate="%{hovertext}<extra></extra>",
        customdata=[[f"{layer} {position}" for position in positions] for layer in layers],
    )


def _veil(weight: xr.DataArray, theme: Theme) -> go.Heatmap:
    clear, full = (f"rgba{(*bytes.fromhex(theme.paper[1:]), alpha)}" for alpha in (0, 0.9))
    return go.Heatmap(
        **_sheet(weight),
        zmin=0,
        zmax=1,
        colorscale=[[0, full], [1, clear]],
        showscale=False,
        hoverinfo="skip",
    )


def _sheet(values: xr.DataArray) -> dict[str, Any]:
    rows, columns = values.shape
    steps = {"x": list(range(columns)), "y": list(range(rows))}
    return {"z": values.values.astype(np.float32), "xgap": 1, "ygap": 1} | steps


def _written(cells: Cells, room: int) -> list[list[str]]:
    known = cells.values.notnull().values
    return [
        [_cell(token, bold, room) if here else "" for token, bold, here in zip(*row, strict=True)]
        for row in zip(cells.tokens.values, cells.strong.values, known, strict=True)
    ]


def _cell(token: str, bold: bool, room: int) -> str:
    text = markup(shorten(visible(token), room))
    return f"<b>{text}</b>" if bold else text


def _token_axis(values: xr.DataArray, theme: Theme, script: _Script) -> dict[str, Any]:
    # Integers with tick text: labels as x values would merge columns of equal tokens.
    _, positions = _axes(values)
    labels = [markup(shorten(visible(token), script.room)) for token in values["token"].values]
    return theme.axis(
        "position, input token",
        side="top",
        tickvals=list(range(len(positions))),
        ticktext=[f"{place}<br>{label}" for place, label in zip(positions, labels, strict=True)],
        tickfont={"family": MONOSPACE, "size": script.size},
        tickangle=0,
        range=[-0.5, len(positions) - 0.5],
    )

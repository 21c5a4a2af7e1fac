"""The layer axis: panels side by side, the layer upward in all of them, so that a row is a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.errors import ResultError
from workbench.figures.axes import layer_name, layer_ticks
from workbench.figures.panels import Bars, Heat, Line, Lines, Panel, Words
from workbench.figures.scale import Scale
from workbench.figures.theme import MONOSPACE, Theme
from workbench.figures.tokens import markup, shorten, visible
from workbench.figures.window import rows

__all__ = ["layer_marks", "layer_panels"]

_MARGIN = {"l": 48, "r": 10, "t": 66, "b": 96}
_ROW = 8, 26  # pixels, least and most
_TEXT = 14  # pixels of a row that can hold text
_HEIGHT = 700  # pixels for all rows, where they fit
_GAP = 14  # pixels between panels
_LETTER = 7.4  # pixels of a monospace letter of 12
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


def layer_panels(
    groups: Mapping[str, Sequence[Panel]],
    theme: Theme,
    *,
    layer: int | None = None,
    position: int | None = None,
) -> go.Figure:
    """Draw panels side by side on one layer axis, the embedding at the bottom.

    A point's customdata is "layer", or "layer position" where it has one, which is what a click
    needs. Where rows are too low for text, only every n-th row and that of `layer` have theirs.

    Args:
        groups: panels by what brought them (an instrument's title), which is written above its
            panels where there are several.
        layer, position: the selection to mark, if any.

    Raises:
        ResultError: there are no panels.
    """
    panels = [panel for group in groups.values() for panel in group]
    if not panels:
        raise ResultError("no panels to draw: expected at least one")
    layers = _layers(panels)
    height = _height(len(layers))
    written = rows(layers, layers[-1] if layer is None else layer, max(2, height // _TEXT))
    places = _places(panels, theme)
    total = places[-1].end
    layout: dict[str, Any] = theme.layout(
        margin=_MARGIN,
        width=total + _MARGIN["l"] + _MARGIN["r"],
        height=height + _MARGIN["t"] + _MARGIN["b"],
        barmode="relative",
        hovermode="closest",
        yaxis=_layer_axis(layers, height, theme),
        shapes=[] if layer is None else layer_marks(groups, theme, layer, position),
        annotations=_headings(groups, places, theme) if len(groups) > 1 else [],
    )
    traces: list[Any] = []
    for panel, place in zip(panels, places, strict=True):
        layout |= place.layout(panel)
        traces += place.traces(panel, written)
    return go.Figure(traces, layout)


def layer_marks(
    groups: Mapping[str, Sequence[Panel]], theme: Theme, layer: int, position: int | None = None
) -> list[dict[str, Any]]:
    """The shapes that mark a selection in `layer_panels` of the same groups.

    A frame around the layer's row across all panels, and one around the column of `position` in
    every panel that has positions.
    """
    across = {"xref": "paper", "x0": 0, "x1": 1, "y0": layer - 0.5, "y1": layer + 0.5}
    found: list[dict[str, Any]] = [{"type": "rect", "line": _pen(theme, 2)} | across]
    for place, panel in enumerate(panel for group in groups.values() for panel in group):
        if not isinstance(panel, Heat) or panel.values.dims[1] != "position":
            continue
        positions = panel.values["position"].values.tolist()
        if position in positions:
            column = positions.index(position)
            ends = {"x0": column - 0.5, "x1": column + 0.5, "yref": "y domain", "y0": 0, "y1": 1}
            found.append(
                {"type": "rect", "xref": f"x{_suffix(place)}", "line": _pen(theme, 1)} | ends
            )
    return found


def _pen(theme: Theme, width: int) -> dict[str, Any]:
    return {"color": theme.accent, "width": width}


def _suffix(number: int) -> str:
    return "" if number == 0 else str(number + 1)


class _Place:
    """One panel's share of the figure: its axis, its legend or colour bar, its traces."""

    def __init__(self, number: int, start: int, end: int, total: int, theme: Theme) -> None:
        self.suffix = _suffix(number)
        self.end = end
        self.domain = [start / total, end / total]
        self.theme = theme

    def layout(self, panel: Panel) -> dict[str, Any]:
        """The panel's horizontal axis, titled on top, and the place of its legend."""
        axis = self.theme.axis(
            markup(panel.title), domain=self.domain, side="top", anchor="y", **_x_axis(panel)
        )
        legend = {
            "x": self.domain[0],
            "y": -0.02,
            "yanchor": "top",
            "bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 11},
        }
        return {f"xaxis{self.suffix}": axis, f"legend{self.suffix}": legend}

    def traces(self, panel: Panel, written: Sequence[int]) -> list[Any]:
        """The panel's traces; `written` are the layers whose cells have text."""
        if isinstance(panel, Lines):
            return self._lines(panel)
        if isinstance(panel, Bars):
            return self._bars(panel)
        if isinstance(panel, Words):
            return [self._words(panel, written)]
        return [self._heat(panel.values, panel.scale, str(panel.values.dims[1]))]

    def _axes(self) -> dict[str, str]:
        return {"xaxis": f"x{self.suffix}", "yaxis": "y"}

    def _keyed(self, name: str, shown: bool = True) -> dict[str, Any]:
        return self._axes() | {
            "legend": f"legend{self.suffix}",
            "name": markup(name),
            "showlegend": shown,
        }

    def _lines(self, panel: Lines) -> list[go.Scatter]:
        drawn = []
        style = 0
        for name, line in panel.lines.items():
            colour = self.theme.muted if line.control else self.theme.series[style % 4]
            drawn += self._band(line, colour)
            drawn.append(self._line(name, line, colour, style))
            style += not line.control
        return drawn

    def _line(self, name: str, line: Line, colour: str, style: int) -> go.Scatter:
        layers = line.values["layer"].values.tolist()
        return go.Scatter(
            x=line.values.values.tolist(),
            y=layers,
            mode="lines" if line.control else "lines+markers",
            line={
                "color": colour,
                "width": 1.5 if line.control else 2,
                "dash": "dot" if line.control else _DASHES[style % 4],
            },
            marker={"symbol": _SYMBOLS[style % 4], "size": 6},
            customdata=[str(layer) for layer in layers],
            hovertemplate="layer %{y}: %{x:.4g}<extra>" + markup(name) + "</extra>",
            **self._keyed(f"{name} (control)" if line.control else name),
        )

    def _band(self, line: Line, colour: str) -> list[go.Scatter]:
        if line.low is None or line.high is None:
            return []
        layers = line.values["layer"].values.tolist()
        red, green, blue = bytes.fromhex(colour[1:])
        return [
            go.Scatter(
                x=[*line.low.values.tolist(), *line.high.values.tolist()[::-1]],
                y=[*layers, *layers[::-1]],
                fill="toself",
                fillcolor=f"rgba({red},{green},{blue},0.18)",
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
                **self._axes(),
            )
        ]

    def _bars(self, panel: Bars) -> list[go.Bar]:
        layers = panel.values["layer"].values.tolist()
        other = str(panel.values.dims[1])
        return [
            go.Bar(
                x=panel.values.sel({other: part}).values.tolist(),
                y=layers,
                orientation="h",
                marker={"color": self.theme.series[style % 4]},
                customdata=[str(layer) for layer in layers],
                hovertemplate="layer %{y}: %{x:.4g}<extra>" + markup(str(part)) + "</extra>",
                **self._keyed(str(part)),
            )
            for style, part in enumerate(panel.values[other].values.tolist())
        ]

    def _words(self, panel: Words, written: Sequence[int]) -> go.Heatmap:
        heat = self._heat(panel.values, panel.scale, "rank")
        room = int(_column(panel) / _LETTER)
        texts = [
            [
                markup(shorten(visible(str(token)), room)) if layer in written else ""
                for token in row
            ]
            for layer, row in zip(
                panel.tokens["layer"].values.tolist(), panel.tokens.values, strict=True
            )
        ]
        heat.update(
            text=texts,
            texttemplate="%{text}",
            textfont={"family": MONOSPACE, "size": 12, "color": self.theme.cell_ink},
            hovertext=[[markup(visible(str(t))) for t in row] for row in panel.tokens.values],
            hovertemplate="layer %{y}: %{hovertext} %{z:.4g}<extra></extra>",
            ygap=1,
        )
        return heat

    def _heat(self, values: xr.DataArray, scale: Scale, other: str) -> go.Heatmap:
        layers = values["layer"].values.tolist()
        columns = values[str(values.dims[1])].values.tolist()
        ends = [f" {column}" if other == "position" else "" for column in columns]
        return go.Heatmap(
            x=list(range(len(columns))),
            y=layers,
            z=values.values.astype(np.float32),
            zmin=scale.low,
            zmax=scale.high,
            colorscale=scale.colours(self.theme),
            colorbar=self._colour_bar(scale),
            customdata=[[f"{layer}{end}" for end in ends] for layer in layers],
            **self._hover(other, columns, len(layers)),
            **self._axes(),
        )

    def _hover(self, other: str, columns: Sequence[Any], n_layers: int) -> dict[str, Any]:
        """What a cell says; of positions customdata says it, as thousands of texts weigh much."""
        if other == "position":
            return {"hovertemplate": "layer and position %{customdata}: %{z:.4g}<extra></extra>"}
        return {
            "hovertext": [[markup(f"{other} {column}") for column in columns]] * n_layers,
            "hovertemplate": "layer %{y}, %{hovertext}: %{z:.4g}<extra></extra>",
        }

    def _colour_bar(self, scale: Scale) -> dict[str, Any]:
        left, right = self.domain
        bar: dict[str, Any] = {
            "orientation": "h",
            "x": (left + right) / 2,
            "y": -0.02,
            "yanchor": "top",
            "len": (right - left) * 0.9,
            "thickness": 8,
            "outlinewidth": 0,
            "nticks": 4,
            "tickfont": {"size": 11, "color": self.theme.ink},
            "title": {
                "text": f"{scale.title}, {scale.unit}",
                "side": "bottom",
                "font": {"size": 11},
            },
        }
        if scale.ticks:
            bar |= {"tickvals": list(scale.ticks), "ticktext": list(scale.ticks.values())}
        return bar


def _places(panels: Sequence[Panel], theme: Theme) -> list[_Place]:
    ends, end = [], -_GAP
    for panel in panels:
        end += _GAP + _width(panel)
        ends.append(end)
    return [
        _Place(number, ends[number] - _width(panel), ends[number], end, theme)
        for number, panel in enumerate(panels)
    ]


def _headings(
    groups: Mapping[str, Sequence[Panel]], places: Sequence[_Place], theme: Theme
) -> list[dict[str, Any]]:
    """The title of each group above its first panel."""
    found, first = [], 0
    for title, group in groups.items():
        if group:
            found.append(_heading(title, places[first], theme))
        first += len(group)
    return found


def _heading(title: str, place: _Place, theme: Theme) -> dict[str, Any]:
    return {
        "text": f"<b>{markup(title)}</b>",
        "x": place.domain[0],
        "y": 1,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 42,
        "showarrow": False,
        "font": {"color": theme.ink, "size": 13},
    }


def _arrays(panel: Panel) -> list[xr.DataArray]:
    return (
        [it.values for it in panel.lines.values()] if isinstance(panel, Lines) else [panel.values]
    )


def _layers(panels: Sequence[Panel]) -> list[int]:
    found = {
        layer for p in panels for array in _arrays(p) for layer in array["layer"].values.tolist()
    }
    if not found:
        raise ResultError("no layers in these panels: expected at least one")
    return sorted(found)


def _height(count: int) -> int:
    least, most = _ROW
    return max(200, min(count * most, max(_HEIGHT, count * least)))


def _column(panel: Words) -> int:
    """Pixels of one column: what the longest token needs, within reason."""
    longest = max((len(visible(str(token))) for token in panel.tokens.values.ravel()), default=1)
    return min(max(58, round(longest * _LETTER) + 8), 118)


def _width(panel: Panel) -> int:
    if isinstance(panel, Words):
        return max(90, _column(panel) * panel.values.shape[1])
    if isinstance(panel, Heat):
        return int(min(max(110, 12 * panel.values.shape[1]), 240))
    return 150


def _x_axis(panel: Panel) -> dict[str, Any]:
    if isinstance(panel, Lines):
        ends = {} if panel.ends is None else {"range": list(panel.ends)}
        return {"nticks": 4, "showgrid": True} | ends
    if isinstance(panel, Bars):
        return {"nticks": 4, "showgrid": True, "zeroline": True}
    columns = panel.values[str(panel.values.dims[1])].values.tolist()
    if isinstance(panel, Words):
        shown = list(range(len(columns)))
    else:
        shown = list(range(0, len(columns), max(1, -(-len(columns) // 6))))
    texts = [markup(shorten(visible(str(columns[i])), 8)) for i in shown]
    return {
        "tickvals": shown,
        "ticktext": texts,
        "range": [-0.5, len(columns) - 0.5],
        "tickangle": 0,
    }


def _layer_axis(layers: Sequence[int], height: int, theme: Theme) -> dict[str, Any]:
    most = max(3, height // _TEXT)
    if len(layers) <= most:
        ticks = {"tickvals": list(layers), "ticktext": [layer_name(layer) for layer in layers]}
    else:
        ticks = layer_ticks(layers, most)
    return theme.axis(
        "layer",
        range=[layers[0] - 0.5, layers[-1] + 0.5],
        showspikes=True,
        spikemode="across",
        spikethickness=1,
        spikecolor=theme.muted,
        spikedash="dot",
        **ticks,
    )

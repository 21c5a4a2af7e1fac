"""One panel's place on the layer axis: its horizontal axis, its legend or colour bar, its traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.panels import Bars, Line, Lines, Panel, Words
from workbench.figures.scale import Scale
from workbench.figures.theme import MONOSPACE, Theme
from workbench.figures.tokens import markup, shorten, visible

__all__ = ["Place", "column_width", "suffix"]

_LETTER = 7.4  # pixels of a monospace letter of 12
_SEEN = 0.01  # of an axis: a mark that is off by less is still seen at its end
_DASHES = ("solid", "dash", "dot", "dashdot")
_CONTROLS = ("dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


class Place:
    """One panel's share of the figure: its axis, its legend or colour bar, its traces.

    Attributes:
        suffix: of the names of its axis and legend.
        end: where it ends, in pixels of the figure's plot.
        domain: its share of the figure's width.
        theme: the look.
    """

    def __init__(self, number: int, start: int, end: int, total: int, theme: Theme) -> None:
        self.suffix = suffix(number)
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
        seen = {False: 0, True: 0}  # lines so far, and controls
        for name, line in panel.lines.items():
            style = seen[line.control]
            colour = self.theme.muted if line.control else self.theme.series[style % 4]
            drawn += self._band(line, colour)
            drawn.append(self._line(name, line, colour, style))
            seen[line.control] += 1
        colours = [trace.line.color for trace in drawn if trace.name]
        return drawn + self._beyond(panel, colours)

    def _line(self, name: str, line: Line, colour: str, style: int) -> go.Scatter:
        layers = line.values["layer"].values.tolist()
        return go.Scatter(
            x=line.values.values.tolist(),
            y=layers,
            mode="lines" if line.control else "lines+markers",
            line={
                "color": colour,
                "width": 1.5 if line.control else 2,
                "dash": (_CONTROLS if line.control else _DASHES)[style % 4],
            },
            marker={"symbol": _SYMBOLS[style % 4], "size": 6},
            customdata=[str(layer) for layer in layers],
            hovertemplate="layer %{y}: %{x:.4g}<extra>" + markup(name) + "</extra>",
            **self._keyed(f"{name} (control)" if line.control else name),
        )

    def _beyond(self, panel: Lines, colours: Sequence[str]) -> list[go.Scatter]:
        """The values that leave the axis, at its ends, each in its line's colour."""
        found: dict[tuple[bool, int], list[str]] = {}
        if panel.ends is None:
            return []
        low, high = panel.ends
        seen = _SEEN * (high - low)
        for line, colour in zip(panel.lines.values(), colours, strict=True):
            for layer, value in zip(
                line.values["layer"].values.tolist(), line.values.values.tolist(), strict=True
            ):
                if value < low - seen or value > high + seen:
                    text = f"<span style='color:{colour}'>{value:.3g}</span>"
                    found.setdefault((value > high, layer), []).append(text)
        return [
            go.Scatter(
                x=[high if right else low],
                y=[layer],
                mode="text",
                text=[f"{', '.join(texts)} ▸" if right else f"◂ {', '.join(texts)}"],
                textposition="bottom left" if right else "bottom right",
                textfont={"size": 11, "color": self.theme.ink},
                customdata=[str(layer)],
                hoverinfo="skip",
                showlegend=False,
                **self._axes(),
            )
            for (right, layer), texts in found.items()
        ]

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
        room = int(column_width(panel) / _LETTER)
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


def suffix(number: int) -> str:
    """What plotly puts behind the name of its n-th axis or legend, counted from 0."""
    return "" if number == 0 else str(number + 1)


def column_width(panel: Words) -> int:
    """Pixels of one column: what the longest token needs, within reason."""
    longest = max((len(visible(str(token))) for token in panel.tokens.values.ravel()), default=1)
    return min(max(58, round(longest * _LETTER) + 8), 118)


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

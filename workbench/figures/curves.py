"""Quantities along the layers, one small plot above another on a shared layer axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from workbench.figures.axes import layer_ticks
from workbench.figures.theme import Theme
from workbench.figures.tokens import markup

__all__ = ["Curves", "layer_curves", "layer_mark"]

LEGEND = 20  # pixels of one line of the legend; two lines fit without
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True)
class Curves:
    """One plot of a stack: named lines with dim layer between two ends; the title has the unit."""

    title: str
    lines: Mapping[str, xr.DataArray]
    ends: tuple[float, float]


def layer_curves(stack: Sequence[Curves], theme: Theme) -> go.Figure:
    """Draws the stack, first plot on top; x = layer. Lines differ by dash and marker, too."""
    lines = [
        (name, line, _axis_name("y", index))
        for index, curves in enumerate(stack)
        for name, line in curves.lines.items()
    ]
    layout = theme.layout(
        margin={"l": 48, "r": 12, "t": 26, "b": 40},
        xaxis=_layer_axis(stack, theme),
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        height=150 * len(stack) + 40 + LEGEND * max(0, len(lines) - 2),
    )
    for index, curves in enumerate(stack):
        layout[f"yaxis{_suffix(index)}"] = _value_axis(curves, index, stack, theme)
    return go.Figure([_line(*line, style, theme) for style, line in enumerate(lines)], layout)


def layer_mark(layer: int, theme: Theme) -> dict[str, Any]:
    """A line across all plots of the stack at one layer."""
    line = {"color": theme.accent, "width": 2}
    across = {"yref": "paper", "y0": 0, "y1": 1}
    return {"type": "line", "x0": layer, "x1": layer, "line": line} | across


def _line(name: str, line: xr.DataArray, axis: str, style: int, theme: Theme) -> go.Scatter:
    colour = theme.series[style % len(theme.series)]
    return go.Scatter(
        x=line["layer"].values.tolist(),
        y=line.values.tolist(),
        yaxis=axis,
        name=markup(name),
        mode="lines+markers",
        line={"color": colour, "dash": _DASHES[style % len(_DASHES)], "width": 2},
        marker={"symbol": _SYMBOLS[style % len(_SYMBOLS)], "size": 6},
        hovertemplate="layer %{x}: %{y:.3g}<extra>" + markup(name) + "</extra>",
    )


def _value_axis(
    curves: Curves, index: int, stack: Sequence[Curves], theme: Theme
) -> dict[str, Any]:
    share = 1 / len(stack)
    top, bottom = 1 - index * share, 1 - (index + 1) * share
    gap = 0.16 * share if index + 1 < len(stack) else 0
    return theme.axis(
        markup(curves.title),
        domain=[max(bottom + gap, 0), top],
        range=list(curves.ends),
        showgrid=True,
        nticks=5,
    )


def _layer_axis(stack: Sequence[Curves], theme: Theme) -> dict[str, Any]:
    layers = next(iter(stack[0].lines.values()))["layer"].values.tolist()
    return theme.axis(
        "layer",
        anchor=_axis_name("y", len(stack) - 1),
        **layer_ticks(layers),
        range=[layers[0] - 0.4, layers[-1] + 0.4],
        showgrid=True,
    )


def _suffix(index: int) -> str:
    return "" if index == 0 else str(index + 1)


def _axis_name(letter: str, index: int) -> str:
    return f"{letter}{_suffix(index)}"

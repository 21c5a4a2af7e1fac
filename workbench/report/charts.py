"""Figures of reports: a summary along the layers with its band, and how many prompts fall where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import polars as pl

from workbench.figures import LIGHT, layer_name, layer_ticks, markup

__all__ = ["layer_counts", "layer_lines"]

HEIGHT = 340
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
NEVER = "never"
MARGIN = {"l": 64, "r": 16, "t": 28, "b": 48}


def layer_lines(
    table: pl.DataFrame,
    label: str,
    *,
    line: str | None = None,
    names: Sequence[str] = (),
    **axis: Any,
) -> go.Figure:
    """Value along the layers with a band from low to high.

    Args:
        table: columns layer, value, low, high, n, as `workbench.report.summaries` gives them.
        label: of the vertical axis, with the unit.
        line: the column whose values are lines of their own.
        names: its values; each keeps its look, whether or not it is in this table.
        axis: more settings of the vertical axis.
    """
    traces = [
        trace
        for style, name, part in _parts(table, line, names)
        for trace in _line(name, part, style, named=len(names) > 1)
    ]
    layers = table["layer"].unique().sort().to_list()
    x_axis = LIGHT.axis(
        "layer", **layer_ticks(layers, most=13), range=[layers[0] - 0.4, layers[-1] + 0.4]
    )
    return go.Figure(traces, _layout(x_axis, LIGHT.axis(markup(label), showgrid=True, **axis)))


def layer_counts(
    table: pl.DataFrame, label: str, *, line: str | None = None, names: Sequence[str] = ()
) -> go.Figure:
    """Bars of the column `prompts` over the layers; a null layer is the bar "never"."""
    layers = table["layer"].drop_nulls().sort().to_list()
    shown = [layer_name(layer) for layer in range(layers[0], layers[-1] + 1)] if layers else []
    traces = [
        go.Bar(
            x=[_layer_or_never(layer) for layer in part["layer"]],
            y=part["prompts"].to_list(),
            name=markup(name),
            showlegend=len(names) > 1,
            marker={"color": LIGHT.series[style % len(LIGHT.series)]},
            hovertemplate="%{x}: %{y} prompts<extra>" + markup(name) + "</extra>",
        )
        for style, name, part in _parts(table, line, names)
    ]
    order = {"categoryorder": "array", "categoryarray": [*shown, NEVER]}
    x_axis = LIGHT.axis(markup(label), type="category", **order)
    return go.Figure(traces, _layout(x_axis, LIGHT.axis("prompts", showgrid=True)))


def _layer_or_never(layer: int | None) -> str:
    return NEVER if layer is None else layer_name(layer)


def _parts(
    table: pl.DataFrame, line: str | None, names: Sequence[str]
) -> list[tuple[int, str, pl.DataFrame]]:
    """Number of the look, name and rows of each line that there is."""
    if line is None:
        return [(0, "", table)]
    every = [(i, name, table.filter(pl.col(line) == name)) for i, name in enumerate(names)]
    return [part for part in every if not part[2].is_empty()]


def _layout(x_axis: dict[str, Any], y_axis: dict[str, Any]) -> dict[str, Any]:
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return LIGHT.layout(
        xaxis=x_axis, yaxis=y_axis, height=HEIGHT, margin=MARGIN, legend=legend, barmode="group"
    )


def _line(name: str, part: pl.DataFrame, style: int, *, named: bool) -> list[go.Scatter]:
    colour = LIGHT.series[style % len(LIGHT.series)]
    look = style + style // len(
        LIGHT.series
    )  # a colour that comes again has another dash and marker
    middle = go.Scatter(
        x=part["layer"].to_list(),
        y=part["value"].to_list(),
        name=markup(name),
        showlegend=named,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": DASHES[look % len(DASHES)]},
        marker={"symbol": SYMBOLS[look % len(SYMBOLS)], "size": 6},
        customdata=part.select("low", "high", "n").rows(),
        hovertemplate=_hover(name),
    )
    return [*_band(part, colour), middle]


def _hover(name: str) -> str:
    ends = "95%% interval %{customdata[0]:.4g} to %{customdata[1]:.4g}, n = %{customdata[2]}"
    return f"layer %{{x}}: %{{y:.4g}}<br>{ends.replace('%%', '%')}<extra>{markup(name)}</extra>"


def _band(part: pl.DataFrame, colour: str) -> list[go.Scatter]:
    whole = part.drop_nulls(["low", "high"])
    if whole.is_empty():
        return []
    layers, red_green_blue = whole["layer"].to_list(), tuple(bytes.fromhex(colour[1:]))
    return [
        go.Scatter(
            x=[*layers, *reversed(layers)],
            y=[*whole["high"], *reversed(whole["low"].to_list())],
            fill="toself",
            fillcolor=f"rgba{(*red_green_blue, 0.18)}",
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        )
    ]

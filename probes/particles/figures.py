"""Order along the layers beside what untrained twins and shuffled tokens give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from probes.particles.laws import LAWS, framed, law
from probes.particles.panels import CONTROLS, HEADINGS
from probes.particles.quantities import LEADING, QUANTITIES
from probes.particles.reading import counted, ends, of_prompt, over_draws
from probes.particles.views import CENTRED
from workbench.errors import ResultError
from workbench.figures import Theme, layer_mark, layer_ticks, markup, themed
from workbench.figures.reading import chosen

__all__ = ["figure"]

CHANCE = "random directions"
WIDTH, HEIGHT = 420, 250  # pixels of one plot
TOP, BOTTOM = 116, 52  # with two lines of legend over the plots
DASHES = {"random": "dash", "shuffled": "dot"}


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    shows: str = "order",
) -> go.Figure:
    """Order along the layers, or how cosines are spread at each.

    Args:
        data: a result's dataset.
        theme: "light" or "dark".
        prompt: id of the prompt; the first one where None.
        selected: the (layer, position) to mark; the position has no meaning here.
        shows: "order", "cosines" or "component".

    Raises:
        ResultError: the result has no such prompt, or not what is to be shown.
    """
    one, look = of_prompt(data, prompt), themed(theme)
    if shows != "order" and shows not in LAWS:
        raise ResultError(f"shows is {shows!r}: expected one of order, {', '.join(LAWS)}")
    name = _name(data, prompt)
    drawn = _order(one, look, name) if shows == "order" else law(one, shows, look, name)
    if selected is not None:
        mark = layer_mark(selected[0], look) if shows == "order" else framed(selected[0], look)
        columns = {axis.domain: axis.plotly_name for axis in drawn.select_xaxes()}
        for axis in columns.values():
            drawn.add_shape(mark | {"xref": axis.replace("axis", "")})
    return drawn


def _order(one: xr.Dataset, look: Theme, prompt: str) -> go.Figure:
    """Mean cosine above, order parameter below; raw on the left, centred on the right.

    Bands go from the least to the largest draw of a control; the line in each is their mean.
    """
    views = [view for view in HEADINGS if view in one["view"].values]
    drawn = make_subplots(
        rows=len(LEADING),
        cols=len(views),
        shared_xaxes=True,
        shared_yaxes="rows",
        horizontal_spacing=0.04,
        vertical_spacing=0.07,
    )
    for row, name in enumerate(LEADING, 1):
        for column, view in enumerate(views, 1):
            traces = list(_traces(one, name, view, look, first=column == 1))
            drawn.add_traces(traces, row, column)
    _axes(drawn, one, views, look)
    _dress(drawn, one, views, look, prompt)
    return drawn


def _name(data: xr.Dataset, prompt: str | int | None) -> str:
    return f"prompt {chosen('prompt', prompt, data['prompt'].values)}"


def _traces(
    one: xr.Dataset, name: str, view: str, look: Theme, *, first: bool
) -> Iterator[go.Scatter]:
    values, named = one[name], first and name == LEADING[0]
    for style, (control, title) in enumerate(CONTROLS.items(), 1):
        drawn = control if view == "raw" else CENTRED[control]
        if drawn in one["view"].values:
            yield from _control(values.sel(view=drawn), title, look.series[style], control, named)
    if name == "order_parameter":
        yield _chance(one.sel(view=view), look, named=first)
    yield _line(over_draws(values.sel(view=view)), "this prompt", look.series[0], "solid", named)


def _control(
    those: xr.DataArray, title: str, colour: str, control: str, named: bool
) -> Iterator[go.Scatter]:
    low, high = (end.values.tolist() for end in ends(those))
    layers = those["layer"].values.tolist()
    yield go.Scatter(
        x=[*layers, *reversed(layers)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=f"rgba{(*bytes.fromhex(colour[1:]), 0.18)}",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        legendgroup=title,
        showlegend=False,
    )
    count = int(those.notnull().any("layer").sum())
    name = f"{title}s" if control == "random" and count > 1 else title
    yield _line(
        over_draws(those),
        f"{name} ({count} draw{'s' if count != 1 else ''})",
        colour,
        DASHES[control],
        named,
    )


def _chance(own: xr.Dataset, look: Theme, *, named: bool) -> go.Scatter:
    """What r is of as many random directions as tokens count."""
    level = over_draws(own["tokens"]) ** -0.5
    trace = _line(level, f"{CHANCE}, 1/√n", look.muted, "dashdot", named)
    return trace.update(mode="lines", line_width=1, legendgroup=CHANCE)


def _line(values: xr.DataArray, name: str, colour: str, dash: str, named: bool) -> go.Scatter:
    return go.Scatter(
        x=values["layer"].values.tolist(),
        y=values.values.tolist(),
        name=markup(name),
        legendgroup=name,
        showlegend=named,
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 2 if dash == "solid" else 1.5},
        marker={"size": 6 if dash == "solid" else 4},
        hovertemplate="layer %{x}: %{y:.3f}<extra>" + markup(name) + "</extra>",
    )


def _axes(drawn: go.Figure, one: xr.Dataset, views: list[str], look: Theme) -> None:
    layers = one["layer"].values.tolist()
    ticks: dict[str, Any] = layer_ticks(layers)
    for row, name in enumerate(LEADING, 1):
        for column in range(1, len(views) + 1):
            last = row == len(LEADING)
            across = look.axis("layer" if last else "", showgrid=True, **ticks)
            drawn.update_xaxes(across, row=row, col=column, showticklabels=last)
            title = QUANTITIES[name].title if column == 1 else ""
            drawn.update_yaxes(look.axis(title, showgrid=True), row=row, col=column)
        drawn.update_yaxes(range=_range(one[name]), row=row)


def _range(values: xr.DataArray) -> list[float]:
    """From 0 or the least value to 1."""
    low = float(values.min())
    return [min(0.0, low if np.isfinite(low) else 0.0) - 0.04, 1.04]


def _dress(drawn: go.Figure, one: xr.Dataset, views: list[str], look: Theme, prompt: str) -> None:
    said = f"{prompt}: {counted(one.sel(view=views[0]))}"
    plots = HEIGHT * len(LEADING)
    height = TOP + plots + BOTTOM
    headings = [
        {
            "text": f"<b>{view}</b>: {HEADINGS[view]}",
            "x": (column + 0.5) / len(views),
            "y": 1.0,
            "xref": "paper",
            "yref": "paper",
            "xanchor": "center",
            "yanchor": "bottom",
            "showarrow": False,
        }
        for column, view in enumerate(views)
    ]
    drawn.update_layout(
        look.layout(
            width=90 + WIDTH * len(views),
            height=height,
            margin={"l": 64, "r": 16, "t": TOP, "b": BOTTOM},
            title={"text": markup(said), "font": {"size": 13}}
            | {"x": 0, "xref": "paper", "y": 1 - 16 / height, "yanchor": "top"},
            legend={"orientation": "h", "x": 0, "y": 1 + 24 / plots, "yanchor": "bottom"},
            annotations=headings,
        )
    )

"""A neuron's page as one figure: value vector, histogram, contexts, and a list of the neurons."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures import Scale, Theme, markup, shorten, themed, visible
from workbench.figures.reading import chosen, words
from workbench.figures.theme import MONOSPACE

__all__ = ["figure"]

WIDTH = 980  # pixels
ROW = 20  # of one token or context
TOP, BETWEEN, BOTTOM = 96, 84, 56
LETTERS = 11  # of a token in a context's cell
DECADES = (-100, -10, -1, -0.1, -0.01, 0, 0.01, 0.1, 1, 10, 100)


def figure(data: xr.Dataset, *, theme: str = "light", neuron: int | None = None) -> go.Figure:
    """Value vector and histogram side by side, the contexts below; the rest of the list on a click.

    Raises:
        ResultError: the result has no such neuron.
    """
    look, known = themed(theme), data["neuron"].values
    first = known.tolist().index(chosen("neuron", neuron, known))
    pages = [_page(data.isel(unit=unit), look) for unit in range(len(known))]
    traces = [
        trace.update(visible=unit == first) for unit, page in enumerate(pages) for trace in page
    ]
    titles = [_title(data, unit) for unit in range(len(known))]
    layout = _layout(data, look)
    layout["title"] |= {"text": titles[first]}
    if len(known) > 1:
        layout["updatemenus"] = [
            _menu(known.tolist(), titles, [len(p) for p in pages], first, look)
        ]
    return go.Figure(traces, layout)


def _page(one: xr.Dataset, theme: Theme) -> list[Any]:
    return [_values(one, theme), _histogram(one, theme), _contexts(one, theme)]


def _values(one: xr.Dataset, theme: Theme) -> go.Bar:
    """Promoted tokens, the strongest on top, then suppressed ones, the strongest at the bottom."""
    tokens = words(one, one["value_id"])
    scores = one["value_score"].values
    names = [*tokens[0], *reversed(tokens[1])]
    values = [*scores[0].tolist(), *reversed(scores[1].tolist())]
    k = len(tokens[0])
    return go.Bar(
        x=values,
        y=list(range(2 * k)),
        orientation="h",
        marker={"color": [theme.series[0]] * k + [theme.series[1]] * k},
        text=[markup(shorten(visible(str(name)), 18)) for name in names],
        textposition="outside",
        textfont={"family": MONOSPACE, "size": 11, "color": theme.ink},
        cliponaxis=False,
        customdata=[markup(visible(str(name))) for name in names],
        hovertemplate="%{customdata}: %{x:.3f}<extra></extra>",
        showlegend=False,
        xaxis="x",
        yaxis="y",
    )


def _histogram(one: xr.Dataset, theme: Theme) -> go.Bar:
    low, high, count = (one[name].values for name in ("bin_low", "bin_high", "count"))
    ends = [f"{a:.3g} to {b:.3g}" for a, b in zip(low, high, strict=True)]
    return go.Bar(
        x=list(range(len(count))),
        y=np.where(count > 0, count, np.nan).tolist(),
        marker={"color": theme.series[2]},
        customdata=ends,
        hovertemplate="%{customdata}: %{y:,} tokens<extra></extra>",
        showlegend=False,
        xaxis="x2",
        yaxis="y2",
    )


def _contexts(one: xr.Dataset, theme: Theme) -> go.Heatmap:
    tokens = words(one, one["context_token"])
    values = one["context_activation"].values
    there = one["context_token"].values >= 0
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    scale = Scale("activation", "activation", "signed", -most, most)
    seen = [
        [visible(str(t)) if ok else "" for t, ok in zip(r, o, strict=True)]
        for r, o in zip(tokens, there, strict=True)
    ]
    places = zip(
        one["context_position"].values.tolist(), one["context_value"].values.tolist(), strict=True
    )
    return go.Heatmap(
        z=np.where(there & np.isnan(values), 0.0, values),
        x=one["offset"].values.tolist(),
        y=[
            f"{value:.3g} at {position}" if position >= 0 else f" {i * ' '}"
            for i, (position, value) in enumerate(places)
        ],
        text=[[markup(shorten(token, LETTERS)) for token in row] for row in seen],
        texttemplate="%{text}",
        textfont={"family": MONOSPACE, "size": 10, "color": theme.cell_ink},
        customdata=[[markup(token) for token in row] for row in seen],
        hovertemplate="%{customdata}: %{z:.4g}<extra></extra>",
        colorscale=scale.colours(theme),
        zmin=-most,
        zmax=most,
        xgap=1,
        ygap=2,
        showscale=False,
        xaxis="x3",
        yaxis="y3",
    )


def _title(data: xr.Dataset, unit: int) -> str:
    layer = json.loads(data.attrs["provenance"])["settings"]["layer"]
    one = data.isel(unit=unit)
    return (
        f"Layer {layer}, neuron {int(one['neuron'])}: {int(one['tokens']):,} tokens, activation "
        f"{float(one['low']):.3g} to {float(one['high']):.3g}, mean {float(one['mean']):.3g}, above 0 in "
        f"{100 * float(one['positive']):.1f}%"
    )


def _menu(
    known: list[int], titles: list[str], sizes: list[int], first: int, theme: Theme
) -> dict[str, Any]:
    """The list of neurons: a choice shows one page's traces."""
    buttons = [
        {
            "label": f"neuron {neuron}",
            "method": "update",
            "args": [
                {
                    "visible": [
                        other == unit for other, size in enumerate(sizes) for _ in range(size)
                    ]
                },
                {"title.text": titles[unit]},
            ],
        }
        for unit, neuron in enumerate(known)
    ]
    look = {"bgcolor": theme.paper, "bordercolor": theme.rule, "font": {"color": theme.ink}}
    place = {"x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "pad": {"b": 44}}
    return {"buttons": buttons, "active": first, "direction": "down", **place, **look}


def _layout(data: xr.Dataset, theme: Theme) -> dict[str, Any]:
    upper = 2 * data.sizes["k"] * ROW
    lower = data.sizes["context"] * ROW
    whole = upper + BETWEEN + lower
    split = lower / whole
    top = (lower + BETWEEN) / whole
    return theme.layout(
        width=WIDTH,
        height=whole + TOP + BOTTOM,
        margin={"l": 118, "r": 16, "t": TOP, "b": BOTTOM},
        title={"x": 0.01, "xanchor": "left", "font": {"size": 13}},
        bargap=0.15,
        xaxis=theme.axis(
            "value vector in the vocabulary, logit",
            domain=[0, 0.46],
            range=_ends(data),
            anchor="y",
            zeroline=True,
            zerolinecolor=theme.muted,
        ),
        yaxis=theme.axis(
            "suppressed · promoted",
            domain=[top, 1],
            range=[2 * data.sizes["k"] - 0.5, -0.5],
            showticklabels=False,
        ),
        xaxis2=theme.axis(
            "activation (bins: four a decade)", domain=[0.56, 1], anchor="y2", **_bin_ticks(data)
        ),
        yaxis2=theme.axis(
            "tokens", domain=[top, 1], anchor="x2", type="log", showgrid=True, dtick=1
        ),
        xaxis3=theme.axis(
            "token, from that of the greatest activation",
            domain=[0, 1],
            anchor="y3",
            dtick=1,
            showticklabels=True,
        ),
        yaxis3=theme.axis(
            domain=[0, split],
            anchor="x3",
            autorange="reversed",
            tickfont={"family": MONOSPACE, "size": 10},
        ),
    )


def _ends(data: xr.Dataset) -> list[float]:
    """Room for the tokens' texts outside the bars."""
    most = float(np.abs(data["value_score"].values).max()) or 1.0
    return [-1.75 * most, 1.75 * most]


def _bin_ticks(data: xr.Dataset) -> dict[str, Any]:
    """Where 0 and the decades lie among the bins, over those that hold any token."""
    high = data["bin_high"].values
    filled = np.flatnonzero(data["count"].values.sum(0))
    zero = len(high) // 2
    at = {
        value: zero if value == 0 else float(np.abs(high - value).argmin()) + 0.5
        for value in DECADES
    }
    return {
        "tickvals": list(at.values()),
        "ticktext": [f"{value:g}" for value in at],
        "range": [int(filled[0]) - 1, int(filled[-1]) + 1],
    }

"""A neuron's page as one figure: value vector, histogram, contexts, and a list of the neurons."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures import Scale, Theme, markup, shorten, themed, visible
from workbench.figures.reading import chosen, words
from workbench.figures.theme import MONOSPACE

__all__ = ["figure"]

WIDTH = 980  # pixels
ROW = 20  # of one context
BAR = 15  # of one token of a value vector
TOP, BETWEEN, BOTTOM = 96, 84, 56
LETTERS = 8  # of a token in a context's cell
DECADES = (-100, -10, -1, -0.1, -0.01, 0, 0.01, 0.1, 1, 10, 100)


def figure(data: xr.Dataset, *, theme: str = "light", neuron: int | None = None) -> go.Figure:
    """Value vector and histogram side by side, the contexts below; the rest of the list on a click.

    Raises:
        ResultError: the result has no such neuron.
    """
    look, known = themed(theme), data["neuron"].values
    pages = [_Page.of(data, unit, look) for unit in range(len(known))]
    first = known.tolist().index(chosen("neuron", neuron, known))
    traces = [
        trace.update(visible=unit == first)
        for unit, page in enumerate(pages)
        for trace in page.traces
    ]
    menus = [_menu(known.tolist(), pages, first, look)] if len(known) > 1 else []
    figure = go.Figure(traces, _layout(data, look) | {"updatemenus": menus})
    return figure.update_layout(pages[first].words)


@dataclass(frozen=True)
class _Page:
    """One neuron's traces, and the words of the layout that are its own."""

    traces: list[Any]
    words: dict[str, Any]

    @classmethod
    def of(cls, data: xr.Dataset, unit: int, theme: Theme) -> _Page:
        one = data.isel(unit=unit)
        traces = [_values(one, theme), _histogram(one, theme), _contexts(one, theme)]
        places = zip(
            one["context_value"].values.tolist(),
            one["context_position"].values.tolist(),
            strict=True,
        )
        labels = [f"{value:.3g} at {at}" if at >= 0 else "" for value, at in places]
        return cls(traces, {"title.text": _title(data, unit), "yaxis3.ticktext": labels})


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
        textfont={"family": MONOSPACE, "size": 10, "color": theme.ink},
        cliponaxis=False,
        hovertext=[
            f"{markup(visible(str(name)))}: {value:.3f}"
            for name, value in zip(names, values, strict=True)
        ],
        hoverinfo="text",
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
        hovertext=[f"{span}: {n:,} tokens" for span, n in zip(ends, count.tolist(), strict=True)],
        hoverinfo="text",
        showlegend=False,
        xaxis="x2",
        yaxis="y2",
    )


def _contexts(one: xr.Dataset, theme: Theme) -> go.Heatmap:
    """A row a context, a column a token; what was not read has no colour of its own."""
    tokens, values = words(one, one["context_token"]), one["context_activation"].values
    there = one["context_token"].values >= 0
    most = float(np.abs(values[np.isfinite(values)]).max(initial=0)) or 1.0
    seen = np.where(there, np.vectorize(lambda token: visible(str(token)))(tokens), "")
    said = np.where(np.isnan(values), "not read", np.char.mod("%.4g", values))
    return go.Heatmap(
        z=np.where(there & np.isnan(values), 0.0, values),
        x=one["offset"].values.tolist(),
        y=list(range(len(tokens))),
        text=[[markup(shorten(token, LETTERS)) for token in row] for row in seen.tolist()],
        texttemplate="%{text}",
        textfont={"family": MONOSPACE, "size": 10, "color": theme.cell_ink},
        hovertext=[
            [f"{markup(token)}: {value}" for token, value in zip(*rows, strict=True)]
            for rows in zip(seen.tolist(), said.tolist(), strict=True)
        ],
        hoverinfo="text",
        colorscale=Scale("activation", "activation", "signed", -most, most).colours(theme),
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


def _menu(known: list[int], pages: list[_Page], first: int, theme: Theme) -> dict[str, Any]:
    """The list of neurons: a choice shows one page's traces and words."""
    buttons = [
        {
            "label": f"neuron {neuron}",
            "method": "update",
            "args": [
                {"visible": [page is shown for page in pages for _ in page.traces]},
                shown.words,
            ],
        }
        for neuron, shown in zip(known, pages, strict=True)
    ]
    look = {"bgcolor": theme.paper, "bordercolor": theme.rule, "font": {"color": theme.ink}}
    place = {"x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "pad": {"b": 44}}
    return {"buttons": buttons, "active": first, "direction": "down", **place, **look}


def _layout(data: xr.Dataset, theme: Theme) -> dict[str, Any]:
    upper = 2 * data.sizes["k"] * BAR
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
            "contexts: tokens from that of the greatest activation on; blue above 0, red below",
            domain=[0, 1],
            anchor="y3",
            dtick=1,
        ),
        yaxis3=theme.axis(
            "activation at position",
            domain=[0, split],
            anchor="x3",
            range=[data.sizes["context"] - 0.5, -0.5],
            tickvals=list(range(data.sizes["context"])),
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

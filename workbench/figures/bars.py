"""Candidates with their probabilities as horizontal bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from workbench.figures.theme import MONOSPACE, Theme
from workbench.figures.tokens import markup, shorten, visible

__all__ = ["token_bars"]


def token_bars(
    tokens: Sequence[str],
    probabilities: Sequence[float],
    theme: Theme,
    *,
    notes: Mapping[str, str] | None = None,
) -> go.Figure:
    """Bars of the candidates, best on top; `notes` adds a word to a token's label.

    The two sequences are equally long, probabilities between 0 and 1.
    """
    places = list(range(len(tokens)))
    bars = go.Bar(
        x=list(probabilities),
        y=places,
        orientation="h",
        marker={"color": theme.series[0]},
        text=[_number(value) for value in probabilities],
        textposition="outside",
        textfont={"size": 11},
        cliponaxis=False,
        customdata=[markup(visible(token)) for token in tokens],
        hovertemplate="%{customdata}: %{x:.4f}<extra></extra>",
    )
    layout = theme.layout(
        xaxis=theme.axis("probability", range=[0, 1.18], tickvals=[0, 0.5, 1], showgrid=True),
        yaxis=theme.axis(
            tickvals=places,
            ticktext=[_label(place, token, notes or {}) for place, token in enumerate(tokens)],
            tickfont={"family": MONOSPACE, "size": 12},
            range=[len(tokens) - 0.5, -0.5],
        ),
        margin={"l": 150, "r": 8, "t": 4, "b": 38},
        height=18 * len(tokens) + 42,
        bargap=0.3,
    )
    return go.Figure(bars, layout)


def _label(place: int, token: str, notes: Mapping[str, str]) -> str:
    note = f" ({notes[token]})" if token in notes else ""
    return markup(f"{place + 1}. {shorten(visible(token), 16 - len(note))}{note} ")


def _number(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else f"{value:.0e}"

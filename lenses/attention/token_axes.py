"""Axes of tokens for heat maps: whole numbers with labels, so that equal tokens stay apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.figures import Theme, markup, shorten, visible
from workbench.figures.scale import Scale, colour_bar

__all__ = ["coloured", "heading", "labels", "ticks"]

MOST_TICKS = 36
LETTERS = 10


def labels(positions: Sequence[int], tokens: Sequence[object]) -> list[str]:
    """Token and position, as markup."""
    return [
        f"{markup(shorten(visible(str(token)), LETTERS))} {position}"
        for position, token in zip(positions, tokens, strict=True)
    ]


def ticks(texts: Sequence[str]) -> dict[str, Any]:
    """Axis settings: a label at each whole number, or at every n-th where they are many."""
    step = -(-len(texts) // MOST_TICKS)
    return {
        "tickvals": list(range(0, len(texts), step)),
        "ticktext": list(texts[::step]),
        "range": [-0.5, len(texts) - 0.5],
    }


def coloured(scale: Scale, look: Theme) -> dict[str, Any]:
    """Settings of a heat map's colours and its bar."""
    return {
        "zmin": scale.low,
        "zmax": scale.high,
        "colorscale": scale.colours(look),
        "colorbar": colour_bar(scale, look),
    }


def heading(text: str, look: Theme, shift: int = 8) -> dict[str, Any]:
    """What is drawn, `shift` pixels above the plot's left end."""
    return {
        "text": markup(text),
        "font": {"color": look.ink, "size": 13},
        "x": 0,
        "y": 1,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": shift,
        "showarrow": False,
    }

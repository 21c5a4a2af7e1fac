"""Lines of text above a figure of panels, which grows by what they need."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

__all__ = ["headed"]

_LINE = 17  # pixels


def headed(drawn: go.Figure, lines: Sequence[str]) -> go.Figure:
    """The figure with these lines of markup on top, as wide as they are: nothing wraps them."""
    room = _LINE * len(lines)
    height = drawn.layout.height + room
    title = {
        "text": "<br>".join(lines),
        "x": 0.01,
        "xanchor": "left",
        "y": 1 - 18 / height,
        "yref": "container",
        "yanchor": "top",
        "font": {"size": 12},
    }
    return drawn.update_layout(
        title=title, height=height, margin={"t": drawn.layout.margin.t + room}
    )

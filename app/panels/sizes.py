"""How large a figure may become on the page."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

__all__ = ["HEIGHT", "style"]

HEIGHT = 450  # pixels, of a figure that says nothing of it
WIDEST = 1.6  # times the width that it asks for


def style(figure: go.Figure) -> dict[str, Any]:
    """As high as it asks for, and as wide as the page within reason; narrower pages scroll it."""
    found: dict[str, Any] = {"height": figure.layout.height or HEIGHT}
    width = figure.layout.width
    if width is not None:
        found |= {"minWidth": width, "maxWidth": round(width * WIDEST)}
    return found

"""A line of a tab that says how things stand, read out when it changes."""

from __future__ import annotations

from typing import Any

from dash import html

__all__ = ["said"]


def said(name: str | dict[str, str]) -> html.Div:
    """The line, empty."""
    live: dict[str, Any] = {"aria-live": "polite"}
    return html.Div(id=name, className="said", **live)

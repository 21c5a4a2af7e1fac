"""The one selection: clicks and keys move it in the browser (see assets/selection.js)."""

from __future__ import annotations

import dash
from dash import Input, Output, State

from app import ids
from app.parts import in_browser

__all__ = ["register", "selects"]


def register(app: dash.Dash) -> None:
    """What selects on every tab."""
    selects(app, Input(ids.CURVES, "clickData"), Input(ids.KEYS, "data"), Input(ids.SITE, "value"))


def selects(app: dash.Dash, *inputs: Input) -> None:
    """Wires inputs that assets/selection.js turns into a selection."""
    in_browser(
        app,
        "select",
        Output(ids.SELECTION, "data", allow_duplicate=True),
        *inputs,
        State(ids.SELECTION, "data"),
        State(ids.RUN, "data"),
        prevent_initial_call=True,
    )

"""The top bar: what to measure, and what to do with the page as a whole."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, html

from app import ids
from app.exports import menu
from app.parts import choice, in_browser
from app.state import Asked

__all__ = ["layout", "register"]


def layout(models: list[str], start: Asked) -> dmc.Group:
    """The bar, filled in with what the page opens with."""
    return dmc.Group(
        [
            dmc.Title("Workbench", order=1, size="h3", className="beside"),
            dmc.Box(choice(ids.MODEL, "Model", models, start.model), w=140),
            _prompt(start.text),
            _field(ids.TARGET, "Target token", start.target, w=110),
            _field(ids.FOIL, "Foil (optional)", start.foil, w=110),
            dmc.Button("Run", id=ids.RUN_BUTTON, size="xs", className="beside"),
            dmc.Button("Copy link", id="copy", size="xs", variant="default", className="beside"),
            menu(),
            dmc.Switch(id="dark", label="Dark", size="sm", persistence=True, mt=29),
            html.Div(id=ids.STATUS, role="status", className="status"),
        ],
        gap="sm",
        align="flex-start",
        wrap="nowrap",
        className="topbar",
    )


def register(app: dash.Dash) -> None:
    """Theme and link, both without the server."""
    in_browser(
        app,
        "theme",
        Output(ids.THEME, "forceColorScheme"),
        Input("dark", "checked"),
    )
    in_browser(
        app,
        "address",
        Input(ids.RUN, "data"),
        Input(ids.SELECTION, "data"),
        Input(ids.COLOUR, "value"),
        Input(ids.VIEW, "value"),
    )
    in_browser(
        app,
        "copyLink",
        Output(ids.STATUS, "children", allow_duplicate=True),
        Input("copy", "n_clicks"),
        State(ids.RUN, "data"),
        prevent_initial_call=True,
    )


def _prompt(text: str) -> dmc.Textarea:
    """A field that grows with its lines; Enter runs (see assets/workbench.js)."""
    return dmc.Textarea(
        id=ids.PROMPT,
        label="Prompt",
        value=text,
        size="xs",
        autosize=True,
        minRows=1,
        maxRows=8,
        spellCheck=False,
        flex=1,
        miw=200,
    )


def _field(name: str, label: str, value: str, **style: Any) -> dmc.TextInput:
    return dmc.TextInput(
        id=name, label=label, value=value, size="xs", autoComplete="off", spellCheck=False, **style
    )

"""The prompt's tokens as a row of buttons: a click selects the position."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dash
import numpy as np
from dash import Input, Output, State, html

from app import ids
from app.parts import in_browser
from workbench import Result
from workbench.figures import visible

__all__ = ["buttons", "layout", "register", "tokens"]


def layout() -> html.Div:
    """The row, empty until something is measured."""
    named: dict[str, Any] = {"aria-label": "Tokens of the prompt"}
    return html.Div(id=ids.TOKENS, className="tokens", role="group", **named)


def register(app: dash.Dash) -> None:
    """Marks the selected token, in the browser."""
    in_browser(
        app,
        "press",
        Output(ids.TOKENS, "children", allow_duplicate=True),
        Input(ids.SELECTION, "data"),
        State(ids.TOKENS, "children"),
        prevent_initial_call=True,
    )


def tokens(results: Iterable[Result], prompt: int | str) -> dict[int, str]:
    """Text of each token of a prompt by its position, as far as any result has read it."""
    found: dict[int, str] = {}
    for data in (result.data for result in results):
        if {"prompt", "position", "token"} <= set(data.coords):
            here = data["token"].isel(place=np.flatnonzero(data["prompt"].values == prompt))
            found |= dict(zip(here["position"].values.tolist(), here.values.tolist(), strict=True))
    return dict(sorted(found.items()))


def buttons(texts: dict[int, str], selected: int) -> list[html.Button]:
    """One button for each token; the selected one is pressed."""
    return [_button(position, text, position == selected) for position, text in texts.items()]


def _button(position: int, text: str, pressed: bool) -> html.Button:
    state: dict[str, Any] = {
        "aria-pressed": "true" if pressed else "false",
        "data-position": str(position),
    }
    return html.Button(visible(text), className="token", title=f"position {position}", **state)

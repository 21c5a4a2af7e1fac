"""The prompt's tokens as a row of buttons: a click selects the position.

The browser makes the buttons (see assets/panels.js): as components of the page, hundreds of them would
slow down every change of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dash
import numpy as np
from dash import Input, dcc, html

from app import ids
from app.parts import in_browser
from workbench import Result
from workbench.figures import visible

__all__ = ["layout", "register", "shown", "tokens"]


def layout() -> html.Div:
    """The row, empty until something is measured."""
    named: dict[str, Any] = {"aria-label": "Tokens of the prompt"}
    row = html.Div(id="layers-tokens", className="tokens", role="group", **named)
    return html.Div([row, dcc.Store(id=ids.TOKENS)])


def register(app: dash.Dash) -> None:
    """Makes the buttons, presses the selected one and brings it into view."""
    in_browser(app, "tokens", Input(ids.TOKENS, "data"), Input(ids.SELECTION, "data"))


def tokens(results: Iterable[Result], prompt: int | str) -> dict[int, str]:
    """Text of each token of a prompt by its position, as far as any result has read it."""
    found: dict[int, str] = {}
    for data in (result.data for result in results):
        if {"prompt", "position", "token"} <= set(data.coords):
            here = data["token"].isel(place=np.flatnonzero(data["prompt"].values == prompt))
            found |= dict(zip(here["position"].values.tolist(), here.values.tolist(), strict=True))
    return dict(sorted(found.items()))


def shown(texts: Mapping[int, str]) -> list[tuple[int, str]]:
    """Position and text of each button."""
    return [(position, visible(text)) for position, text in texts.items()]

"""The prompt's tokens as a row in which the subject is chosen, and the field of the corrupted text.

The browser makes the buttons and keeps what is chosen (see assets/subject.js): a drag over tokens, or a
click on the first and on the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html

from app import ids
from app.panels.said import said
from app.parts import in_browser
from app.state import Asked
from workbench.figures import visible

__all__ = ["TEXTS", "corrupted", "layout", "register", "row", "spans"]

ROW, TEXTS, SAID = "subject-tokens", "subject-texts", "subject-said"
CORRUPTED, NONE = "subject-corrupted", "subject-none"
CHOSEN = "subject-chosen"  # data: when tokens were last chosen
FAR = 24  # characters that tokens without a text of their own may stand for
HELP = "Subject: drag over its tokens, or choose the first and then the last"


def layout() -> html.Div:
    """The row, empty until something is measured, and the button that clears it."""
    named: dict[str, Any] = {"aria-label": HELP}
    return html.Div(
        [
            html.Div(id=ROW, className="tokens subject", role="group", title=HELP, **named),
            dmc.Group(
                [
                    said(SAID),
                    dmc.Button("No subject", id=NONE, size="compact-xs", variant="default"),
                ]
            ),
            dcc.Store(id=TEXTS),
            dcc.Store(id=CHOSEN),
        ]
    )


def corrupted() -> dmc.TextInput:
    """The field of the text that is run in the prompt's place."""
    return dmc.TextInput(
        id=CORRUPTED,
        label="Corrupted text, for token replacement: of as many tokens as the prompt",
        size="xs",
        maw=760,
        autoComplete="off",
        spellCheck=False,
    )


def register(app: dash.Dash) -> None:
    """Makes the buttons, and keeps what is chosen in `ids.AIM`; all in the browser."""
    in_browser(
        app,
        "subject",
        Output(SAID, "children"),
        Output(CORRUPTED, "value"),
        Output(CORRUPTED, "disabled"),
        Output(NONE, "disabled"),
        Input(TEXTS, "data"),
        Input(ids.AIM, "data"),
    )
    in_browser(
        app,
        "chooseSubject",
        Output(ids.AIM, "data", allow_duplicate=True),
        Input(CHOSEN, "data"),
        Input(NONE, "n_clicks"),
        Input(CORRUPTED, "value"),
        State(TEXTS, "data"),
        State(ids.AIM, "data"),
        prevent_initial_call=True,
    )


def row(asked: Asked, texts: Mapping[int, str]) -> dict[str, Any]:
    """What the browser needs of a prompt: position, text and characters of each token, and its subject.

    Args:
        asked: the prompt.
        texts: its tokens by position.
    """
    places = spans(asked.text, texts)
    return {
        "text": asked.text,
        "subject": asked.subject,
        "corrupted": asked.corrupted,
        "fixed": bool(asked.prompts),
        "tokens": [[i, visible(text), *places.get(i, (-1, -1))] for i, text in texts.items()],
    }


def spans(text: str, tokens: Mapping[int, str]) -> dict[int, tuple[int, int]]:
    """The characters [start, end) that each token stands for, without the space before a word.

    Special tokens, and those that are part of a character, have none: no subject begins or ends with
    them.

    >>> spans("The Eiffel", {0: "<s>", 1: "The", 2: " Eiff", 3: "el"})
    {1: (0, 3), 2: (4, 8), 3: (8, 10)}
    """
    found, end, lost = {}, 0, False
    for position, token in tokens.items():
        word = token.lstrip(" ") or token
        start = text.find(word, end, end + FAR + len(word))
        placed = start >= 0 and (lost or not text[end:start].strip())
        if word and placed:
            end = start + len(word)
            found[position] = (start, end)
        lost = not placed  # then the next token may stand behind what this one is a part of
    return found

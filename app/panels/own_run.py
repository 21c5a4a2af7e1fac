"""The head of an instrument's tab: what it is, its settings, and the button that runs it."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, html

from app import ids
from app.bench import Bench
from app.instruments import kinds
from app.panels import forms
from app.panels.said import said
from app.parts import in_browser
from workbench import Result

__all__ = ["layout", "made_with", "note", "parts", "register"]

EMPTY = "(empty)"


def layout(instrument: str) -> list[Any]:
    """The first sentence of its documentation, the form, and button and note in a line."""
    summary, form, run, line = parts(instrument)
    return [summary, form, dmc.Group([run, line], my=8)]


def parts(instrument: str) -> tuple[Any, Any, Any, Any]:
    """The same one by one, for a tab that places them itself: sentence, form, button, note."""
    kind = kinds()[instrument]
    summary = (kind.__doc__ or "").partition("\n\n")[0]
    return (
        html.P(" ".join(summary.split()), className="said"),
        forms.form(instrument),
        dmc.Button(f"Run {kind.title}", id=_button(instrument), size="xs"),
        said(_note(instrument)),
    )


def note(instrument: str) -> Output:
    """Where the tab says how things stand."""
    return Output(_note(instrument), "children")


def register(app: dash.Dash, instrument: str) -> None:
    """The button asks for a run of the page's prompt."""
    in_browser(
        app,
        "ask",
        Output(ids.ASK, "data", allow_duplicate=True),
        Input(_button(instrument), "n_clicks"),
        State(_button(instrument), "id"),
        prevent_initial_call=True,
    )


def made_with(bench: Bench, result: Result) -> str:
    """The settings that a result was made with."""
    settings = bench.named(result.instrument, result.provenance["settings"])
    texts = (f"{name} {text.removesuffix(',') or EMPTY}" for name, text in settings.items())
    made = [f"Measured with {', '.join(texts)}."] if settings else []
    return " ".join([*made, *(f"{remark}." for remark in result.provenance.get("remarks", []))])


def _button(instrument: str) -> dict[str, str]:
    return {"type": "ask", "instrument": instrument}


def _note(instrument: str) -> dict[str, str]:
    return {"type": "note", "instrument": instrument}

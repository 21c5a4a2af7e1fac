"""What the tab in front is given: of one change of the page, the others hear nothing."""

from __future__ import annotations

from typing import Any

import dash
from dash import ALL, Input, Output, State, dcc

from app import ids
from app.parts import in_browser
from app.state import Run, Selection, Shown

__all__ = ["given", "register", "shown", "store"]


def store(tab: str) -> dcc.Store:
    """Where a tab's share is kept; each tab's layout has one."""
    return dcc.Store(id=_name(tab))


def given(tab: str) -> Input:
    """What a tab's callback takes, in place of run, selection and the rest: see `shown`."""
    return Input(_name(tab), "data")


def shown(share: dict[str, Any]) -> Shown:
    """What the page is to show, from a tab's share."""
    return Shown(
        Run.of(share["run"]),
        Selection(**share["selection"]),
        share["theme"],
        tuple(share["off"] or ()),
        {"view": share["view"]},
    )


def register(app: dash.Dash) -> None:
    """Hands every change to the tab in front, in the browser."""
    every = {"type": "front", "tab": ALL}
    in_browser(
        app,
        "front",
        Output(every, "data"),
        Input(ids.TAB, "value"),
        Input(ids.RUN, "data"),
        Input(ids.SELECTION, "data"),
        Input(ids.THEME, "forceColorScheme"),
        Input(ids.PANELS, "data"),
        Input(ids.VIEW, "value"),
        State(every, "id"),
    )


def _name(tab: str) -> dict[str, str]:
    return {"type": "front", "tab": tab}

"""The row of buttons that switch panels on and off, grouped by instrument."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import dash
from dash import Input, Output, State, dcc, html

from app import ids
from app.instruments import ALWAYS, kinds
from app.panels.groups import NOT_RUN, Group, needs_own_run
from app.parts import in_browser
from workbench.figures import Panel

__all__ = ["chips", "layout", "register"]


def layout() -> html.Div:
    """The row, empty until something is measured."""
    return html.Div([html.Div(id=ids.CHIPS, className="chips"), dcc.Store(id=ids.SWITCHED)])


def register(app: dash.Dash) -> None:
    """A click on a chip changes what is off, in the browser."""
    in_browser(
        app,
        "switchPanels",
        Output(ids.PANELS, "data", allow_duplicate=True),
        Input(ids.SWITCHED, "data"),
        State(ids.PANELS, "data"),
        prevent_initial_call=True,
    )


def chips(found: Sequence[Group], off: Collection[str]) -> list[html.Div]:
    """A group of chips for each instrument, and one of all that are yet to be run; pressed is what is on."""
    waiting = [group for group in found if group.note == NOT_RUN]
    shown = [_chips(group, off) for group in found if group not in waiting]
    return [*shown, _waiting(waiting)] if waiting else shown


def _chips(group: Group, off: Collection[str]) -> html.Div:
    panels = [_chip(group, panel, off) for panel in group.panels]
    return _named(group.title, [_title(group, off), *panels, *_note(group)])


def _waiting(groups: Sequence[Group]) -> html.Div:
    """One line for all instruments that are run from their own tabs: some twenty would each say the same."""
    said = NOT_RUN.capitalize()
    named = [_leads(group.title, group) for group in groups]
    return _named(said, [html.Span(f"{said}:", className="chip-title"), *named], " waiting")


def _named(name: str, children: list[Any], more: str = "") -> html.Div:
    named: dict[str, Any] = {"aria-label": name}
    return html.Div(children, role="group", className=f"chip-group{more}", **named)


def _title(group: Group, off: Collection[str]) -> Any:
    """The instrument's name; where it can be left out of every run, as a switch of its own."""
    if group.instrument == ALWAYS or needs_own_run(kinds()[group.instrument]):
        return html.Span(group.title, className="chip-title")
    return _switch(group.title, group.instrument, off, "Measured with every run", "chip whole")


def _chip(group: Group, panel: Panel, off: Collection[str]) -> html.Button:
    return _switch(panel.name, f"{group.instrument}.{panel.name}", off, panel.title)


def _switch(
    text: str, name: str, off: Collection[str], title: str, look: str = "chip"
) -> html.Button:
    pressed: dict[str, Any] = {
        "aria-pressed": "false" if name in off else "true",
        "data-switch": name,
    }
    return html.Button(text, className=look, title=title, **pressed)


def _note(group: Group) -> list[Any]:
    """Why there is nothing."""
    return [_leads(group.note, group)] if group.note else []


def _leads(text: str, group: Group) -> html.Button:
    """A click leads to the tab where it can be had."""
    leads: dict[str, Any] = {"data-tab": group.instrument}
    return html.Button(text, className="chip-note", title=f"Open {group.title}", **leads)

"""The bars on top of the pages: where else to go, and, on the Inspector, what to measure."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html

from app import ids
from app.bench import Bench
from app.exports import menu
from app.parts import choice, in_browser
from app.state import Asked

__all__ = ["layout", "plain", "register", "register_plain"]

DARK = "dark"
JOBS = "jobs-link"
LATER = "jobs-clock"
EVERY = 2000  # milliseconds between two looks at the number of jobs
PAGES = {"Inspector": "/", "Prompt sets": "/sets/", "Simulate": "/simulate/", "Jobs": "/jobs/"}


def layout(models: list[str], start: Asked) -> html.Div:
    """The Inspector's bar, filled in with what the page opens with."""
    return html.Div(
        [
            _places("Inspector"),
            dmc.Box(choice(ids.MODEL, "Model", models, start.model), w=140),
            _prompt(start.text),
            _field(ids.TARGET, "Target token", start.target),
            _field(ids.FOIL, "Foil (optional)", start.foil),
            html.Div(
                [
                    dmc.Button("Run", id=ids.RUN_BUTTON, size="xs"),
                    dmc.Button("Copy link", id="copy", size="xs", variant="default"),
                    menu(),
                    _switch(),
                    html.Div(id=ids.STATUS, role="status", className="status"),
                ],
                className="actions",
            ),
        ],
        className="topbar",
    )


def plain(page: str) -> html.Div:
    """The bar of a page that measures nothing itself."""
    actions = html.Div(_switch(), className="actions")
    return html.Div([_places(page), actions], className="topbar plain")


def register(app: dash.Dash, bench: Bench) -> None:
    """Theme, link, and the number of jobs."""
    register_plain(app, bench, Input(ids.JOB, "data"))
    in_browser(
        app,
        "copyLink",
        Output(ids.STATUS, "children", allow_duplicate=True),
        Input("copy", "n_clicks"),
        State(ids.RUN, "data"),
        prevent_initial_call=True,
    )


def register_plain(app: dash.Dash, bench: Bench, cause: Input) -> None:
    """Theme, and the number of jobs, which is looked at on every change of `cause`."""
    theme = (ids.THEME, "forceColorScheme")
    in_browser(app, "theme", Output(*theme), Input(DARK, "checked"), State(*theme))

    @app.callback(
        Output(JOBS, "children"),
        Output(LATER, "disabled"),
        Input(LATER, "n_intervals"),
        cause,
    )
    def count(*_: Any) -> tuple[str, bool]:
        """How many jobs wait or run; looked at again while there are any."""
        going = bench.going()
        return (f"Jobs ({going})" if going else "Jobs"), not going


def _places(here: str) -> html.Div:
    """The name, and the pages; the one that is open is marked."""
    links = [_link(name, path, here) for name, path in PAGES.items()]
    clock = dcc.Interval(id=LATER, interval=EVERY, disabled=True)
    nav: dict[str, Any] = {"aria-label": "Pages"}
    return html.Div(
        [dmc.Title("Workbench", order=1, size="h3"), html.Nav(links, **nav), clock],
        className="places",
    )


def _link(name: str, path: str, here: str) -> html.A:
    current: dict[str, Any] = {"aria-current": "page"} if name == here else {}
    named: dict[str, Any] = {"id": JOBS} if name == "Jobs" else {}
    return html.A(name, href=path, **named, **current)


def _switch() -> dmc.Switch:
    return dmc.Switch(id=DARK, label="Dark", size="sm", persistence=True)


def _prompt(text: str) -> dmc.Textarea:
    """A field that grows with its lines; Enter runs (see assets/workbench.js)."""
    return dmc.Textarea(
        id=ids.PROMPT,
        label="Prompt",
        value=text,
        size="xs",
        autosize=True,
        minRows=1,
        maxRows=4,
        spellCheck=False,
        flex="1 1 320px",
        miw=200,
    )


def _field(name: str, label: str, value: str) -> dmc.TextInput:
    return dmc.TextInput(
        id=name, label=label, value=value, size="xs", autoComplete="off", spellCheck=False, w=110
    )

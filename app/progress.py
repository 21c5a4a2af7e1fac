"""The row that says what goes on: how far the page's job is, and the button that cancels it."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.measuring import seen
from app.parts import in_browser
from app.state import Pending

__all__ = ["POLL", "POLLING", "layout", "register", "register_polling", "register_row"]

POLL = "poll"  # n_intervals: when to ask for the job again
ASKING = "asking"  # data: whether the server is being asked
POLLING: list[Any] = [(Output(ASKING, "data"), True, False)]
EVERY = 200  # milliseconds

ROW = "progress"
BAR = "progress-bar"
WORDS = "progress-words"
SPOKEN = "progress-spoken"  # children: what screen readers say of it: not every number
CANCEL = "cancel"


def layout() -> html.Div:
    """The row, hidden while nothing goes on, and the clock that is off then."""
    bar = dmc.ProgressRoot(
        dmc.ProgressSection(id=BAR, value=0, **{"aria-label": "Progress of the measurement"}),
        w=240,
        size="sm",
    )
    cancel = dmc.Button("Cancel", id=CANCEL, size="compact-xs", variant="default")
    row = html.Div([bar, html.Span(id=WORDS), cancel], id=ROW, className="progress", hidden=True)
    spoken = html.Div(id=SPOKEN, role="status", className="unseen")
    clock = dcc.Interval(id=POLL, interval=EVERY, disabled=True)
    return html.Div([row, spoken, clock, dcc.Store(id=ASKING, data=False)])


def register(app: dash.Dash, bench: Bench) -> None:
    """The row, and what of the Inspector waits for the job."""
    register_row(app, bench)
    in_browser(
        app,
        "waiting",
        Output(ids.RUN_BUTTON, "disabled"),
        Output(ids.STAGE, "className"),
        Output(ids.EMPTY_TEXT, "children"),
        Input(ids.JOB, "data"),
        prevent_initial_call=True,
    )


def register_row(app: dash.Dash, bench: Bench) -> None:
    """The row and the clock follow the job; Cancel asks it to stop."""
    in_browser(
        app,
        "progress",
        Output(ROW, "hidden"),
        Output(BAR, "value"),
        Output(WORDS, "children"),
        Output(SPOKEN, "children"),
        Input(ids.JOB, "data"),
        prevent_initial_call=True,
    )
    in_browser(
        app,
        "clock",
        Output(POLL, "disabled"),
        Input(ids.JOB, "data"),
        Input(ASKING, "data"),
    )

    @app.callback(
        Output(CANCEL, "loading"),
        Input(CANCEL, "n_clicks"),
        State(ids.JOB, "data"),
        prevent_initial_call=True,
    )
    def cancel(_: int, job: dict[str, Any]) -> bool:
        """The job stops before its next batch; the clock will see it."""
        bench.desk.cancel(Pending.of(job).job)
        return False


def register_polling(app: dash.Dash, bench: Bench) -> None:
    """Of a page that follows one job: what is known of it is asked for while it goes on."""

    @app.callback(
        Output(ids.JOB, "data", allow_duplicate=True),
        Input(POLL, "n_intervals"),
        State(ids.JOB, "data"),
        running=POLLING,
        prevent_initial_call=True,
    )
    def poll(_: int, job: dict[str, Any] | None) -> dict[str, Any]:
        """Asks how the page's job is getting on."""
        if job is None or not Pending.of(job).going:
            raise PreventUpdate
        before = Pending.of(job)
        return seen(before, bench.desk.job(before.job)).stored()

"""The results of a prompt set: its job is followed, then each instrument's view is shown."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import dash
import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from app import exports, ids, progress
from app.bench import Bench
from app.instruments import kinds
from app.measuring import pending
from app.panels.own_run import made_with
from app.parts import alert, in_browser, notice
from app.state import Pending
from app.summaries import OWN, generic, view_of
from app.summaries.view import EXPORT, LOOKS, Measured
from workbench import WorkbenchError

__all__ = ["QUEUED", "layout", "register"]

QUEUED = "queued"  # children: how the job that was queued here stands
HEAD, BODY = "set-head", "set-body"
SHOWN = "set-instrument"
ROWS = "set-rows"


def layout() -> list[Any]:
    """Empty until a job is done."""
    chosen = dmc.Select(
        id=SHOWN, label="Instrument", data=[], allowDeselect=False, size="xs", w=220
    )
    rows = dmc.Button("All rows as CSV", id=ROWS, n_clicks=0, size="xs", variant="default")
    stage = [
        html.H2("4. Results", className="step"),
        html.Div(id=HEAD),
        dmc.Group([chosen, rows], align="flex-end"),
        html.Div(id=BODY, className="set-body"),
    ]
    return [
        html.Div(stage, id=ids.STAGE, hidden=True),
        dcc.Store(id=ids.JOB),
        dcc.Store(id=ids.RUN),
        dcc.Store(id=LOOKS),
        dcc.Download(id=exports.DOWNLOAD),
    ]


def register(app: dash.Dash, bench: Bench) -> None:
    """Following the job, showing its results, exporting them."""
    progress.register_row(app, bench)
    progress.register_polling(app, bench)
    _register_following(app, bench)
    _register_view(app, bench)
    _register_exports(app, bench)
    for view in (generic.VIEW, *OWN.values()):
        view.register(app, bench)


def _register_following(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(ids.JOB, "data", allow_duplicate=True),
        Output(ids.ALERT, "children", allow_duplicate=True),
        Input("url", "search"),
        prevent_initial_call="initial_duplicate",
    )
    def open_page(search: str | None) -> tuple[Any, Any]:
        """The job that the address names."""
        number = parse_qs((search or "").removeprefix("?")).get("job", [""])[-1]
        if not number:
            raise PreventUpdate
        try:
            return pending(bench.measurement(number)), None
        except WorkbenchError as error:
            return no_update, alert(str(error))

    @app.callback(
        Output(QUEUED, "children"),
        Input(ids.JOB, "data"),
        prevent_initial_call=True,
    )
    def standing(job: dict[str, Any] | None) -> list[Any]:
        """How the page's job stands, and where more is said of it."""
        if job is None:
            raise PreventUpdate
        found = bench.desk.job(job["job"])
        return [f"Job {found.id}: {found.state}. ", html.A("See its log", href="/jobs/"), "."]

    @app.callback(
        Output(ids.RUN, "data"),
        Output(ids.ALERT, "children", allow_duplicate=True),
        Input(ids.JOB, "data"),
        State(ids.RUN, "data"),
        prevent_initial_call=True,
    )
    def take(job: dict[str, Any] | None, shown: dict[str, Any] | None) -> tuple[Any, Any]:
        """What a job that is done has measured; one that joins it is shown by its view."""
        if job is None or Pending.of(job).going:
            raise PreventUpdate
        if job["adds"] or (shown is not None and shown["job"] == job["job"]):
            raise PreventUpdate
        found = bench.desk.job(job["job"])
        if found.state == "done":
            return Measured.of(found).stored(), None
        said = notice("Cancelled: nothing was measured.") if found.state == "cancelled" else None
        return no_update, said or alert(str(found.error))

    in_browser(app, "jobAddress", Input(ids.RUN, "data"))


def _register_view(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(ids.STAGE, "hidden"),
        Output(HEAD, "children"),
        Output(SHOWN, "data"),
        Output(SHOWN, "value"),
        Input(ids.RUN, "data"),
        prevent_initial_call=True,
    )
    def head(shown: dict[str, Any]) -> tuple[Any, ...]:
        """What was measured, and of which instruments there is something to see."""
        names = sorted(shown["results"], key=lambda name: not kinds()[name].needs_set)
        options = [{"value": name, "label": kinds()[name].title} for name in names]
        return False, _head(Measured(**shown)), options, names[0]

    @app.callback(
        Output(BODY, "children"),
        Input(SHOWN, "value"),
        Input(ids.THEME, "forceColorScheme"),
        Input(ids.RUN, "data"),
        prevent_initial_call=True,
    )
    def draw(name: str | None, theme: str, shown: dict[str, Any] | None) -> list[Any]:
        """The instrument's view."""
        if shown is None or name is None or name not in shown["results"]:
            raise PreventUpdate
        key = shown["results"][name]
        try:
            result = bench.desk.result(key)
            said = html.P(made_with(bench, result), className="said")
            return [said, *view_of(name).layout(key, result, theme)]
        except WorkbenchError as error:
            return [alert(str(error))]


def _head(shown: Measured) -> list[Any]:
    prompts = "1 prompt" if shown.n_prompts == 1 else f"{shown.n_prompts:,} prompts"
    parts: list[Any] = [f"Job {shown.job}: {shown.title}, {prompts} on {shown.model}. "]
    if any(not kinds()[name].needs_set for name in shown.results):
        parts += [html.A("Prompt by prompt in the Inspector", href=f"/?job={shown.job}"), "."]
    refused = [html.P(f"{name}: {why}") for name, why in shown.refused.items()]
    return [html.P(parts), *refused]


def _register_exports(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(exports.DOWNLOAD, "data"),
        Output(ids.ALERT, "children", allow_duplicate=True),
        Input(ROWS, "n_clicks"),
        Input({"type": EXPORT, "figure": ALL, "kind": ALL}, "n_clicks"),
        State(SHOWN, "value"),
        State(ids.RUN, "data"),
        State(ids.THEME, "forceColorScheme"),
        State(LOOKS, "data"),
        prevent_initial_call=True,
    )
    def export(
        _: int, __: list[int], name: str, shown: dict[str, Any], theme: str, looks: Any
    ) -> tuple[Any, Any]:
        """A figure as it is shown, or all rows."""
        if not ctx.triggered[0]["value"]:
            raise PreventUpdate
        try:
            result = bench.desk.result(shown["results"][name])
            if ctx.triggered_id == ROWS:
                return exports.file_of(result.to_frame(), f"{name}.csv"), None
            which = ctx.triggered_id
            made = view_of(name).figure(result, which["figure"], theme, looks or {})
            return exports.file_of(made, f"{name}.{which['kind']}"), None
        except WorkbenchError as error:
            return no_update, alert(str(error))

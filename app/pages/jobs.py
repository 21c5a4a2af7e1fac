"""The Jobs page: what was asked of the workers, how far it is, and what came of it."""

from __future__ import annotations

import json
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate
from flask import Flask

from app import ids, topbar
from app.bench import Bench
from app.frame import layout, new_app
from app.jobs_table import CANCEL, CHOOSE, PROGRESS, RETRY, TOOK, progress, table, took
from app.parts import alert
from workbench import WorkbenchError
from workbench.jobs import Job, WorkerState

__all__ = ["mount"]

TABLE = "jobs"
WORKERS = "workers"
DETAIL = "job-detail"
CHOSEN = "job-chosen"  # data: number of the job whose log is shown
DRAWN = "jobs-drawn"  # data: what table and detail were drawn of
CHANGED = "jobs-changed"  # data: counts what was done to jobs on this page
CLEAR = "clear"
CLOCK = "jobs-watch"
SOON, LATER = 500, 3000  # milliseconds between two looks while something runs, and otherwise
WITHOUT = r"(.*\.txt|plotly.*|panels.*|selection.*)"  # this page has no figures


def mount(server: Flask, bench: Bench) -> None:
    """Puts the page at /jobs/."""
    app = new_app(server, "/jobs/", "Jobs - Workbench", without=WITHOUT)
    app.layout = layout(topbar.plain("Jobs"), _main(), html.Div(id=DETAIL, className="detail"))
    topbar.register_plain(app, bench, Input(TABLE, "children"))
    _register_actions(app, bench)
    _register_watch(app, bench)


def _main() -> list[Any]:
    clear = dmc.Button("Clear finished jobs", id=CLEAR, size="compact-xs", variant="default")
    return [
        html.Div([html.H2("Jobs"), clear], className="heading"),
        html.Div(id=ids.ALERT),
        html.Div(id=WORKERS, className="workers"),
        html.Div(id=TABLE, className="scroll"),
        dcc.Interval(id=CLOCK, interval=LATER),
        dcc.Store(id=CHOSEN),
        dcc.Store(id=DRAWN),
        dcc.Store(id=CHANGED, data=0),
    ]


def _register_watch(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(TABLE, "children"),
        Output(WORKERS, "children"),
        Output(DETAIL, "children"),
        Output(DRAWN, "data"),
        Output(CLOCK, "interval"),
        Input(CLOCK, "n_intervals"),
        Input(CHANGED, "data"),
        Input(CHOSEN, "data"),
        State(DRAWN, "data"),
    )
    def look(_: int, __: int, chosen: int | None, drawn: dict[str, Any]) -> tuple[Any, ...]:
        """What has changed of the page: a part that is drawn anew loses the keyboard's place."""
        jobs = bench.desk.jobs()
        job = bench.desk.job(chosen) if chosen in [job.id for job in jobs] else None
        now = {
            "table": [chosen, *((job.id, job.state) for job in jobs)],
            "detail": None if job is None else [job.id, job.state, len(job.log)],
        }
        busy = any(not job.finished for job in jobs)
        return (
            no_update if _same(now, drawn, "table") else table(jobs, chosen),
            _workers(bench.desk.workers()),
            no_update if _same(now, drawn, "detail") else _detail(job),
            now,
            SOON if busy else LATER,
        )

    @app.callback(
        Output({"type": PROGRESS, "job": ALL}, "children"),
        Output({"type": TOOK, "job": ALL}, "children"),
        Input(CLOCK, "n_intervals"),
        State({"type": PROGRESS, "job": ALL}, "id"),
        prevent_initial_call=True,
    )
    def tick(_: int, cells: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
        """The cells that change while a job runs."""
        jobs = {job.id: job for job in bench.desk.jobs()}
        shown = [jobs.get(cell["job"]) for cell in cells]
        return (
            ["" if job is None else progress(job) for job in shown],
            ["" if job is None else took(job) for job in shown],
        )


def _same(now: dict[str, Any], drawn: dict[str, Any] | None, part: str) -> bool:
    """Whether a part stands there as it should; `drawn` comes from the browser, as JSON."""
    return drawn is not None and json.dumps(now[part]) == json.dumps(drawn[part])


def _register_actions(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(CHOSEN, "data"),
        Input({"type": CHOOSE, "job": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def choose(_: Any) -> int:
        return _clicked()

    @app.callback(
        Output(CHANGED, "data"),
        Output(ids.ALERT, "children"),
        *(Input({"type": kind, "job": ALL}, "n_clicks") for kind in (CANCEL, RETRY)),
        Input(CLEAR, "n_clicks"),
        State(CHANGED, "data"),
        prevent_initial_call=True,
    )
    def act(*values: Any) -> tuple[Any, Any]:
        """Does what was clicked; the page is looked at anew."""
        _require_click()
        try:
            if ctx.triggered_id == CLEAR:
                bench.desk.clear()
            elif ctx.triggered_id["type"] == CANCEL:
                bench.desk.cancel(_clicked())
            else:
                bench.desk.retry(_clicked())
        except WorkbenchError as error:
            return no_update, alert(str(error))
        return values[-1] + 1, None


def _require_click() -> None:
    """Stops where buttons were drawn anew, or are gone."""
    if not ctx.triggered[0]["value"]:
        raise PreventUpdate


def _clicked() -> int:
    """The job whose button was clicked."""
    _require_click()
    assert ctx.triggered_id is not None
    return int(ctx.triggered_id["job"])


def _workers(workers: list[WorkerState]) -> list[Any]:
    return [html.P(_worker(worker)) for worker in workers]


def _worker(worker: WorkerState) -> str:
    if worker.error is not None:
        return worker.error
    process = "" if worker.pid is None else f", process {worker.pid}"
    return f"Worker on {worker.device}: {worker.state}{process}"


def _detail(job: Job | None) -> list[Any]:
    """The chosen job's own line and its log."""
    if job is None:
        return [html.H2("No job chosen"), html.P("Click on a job's title to read its log.")]
    log = "\n".join(line.line for line in job.log)
    error = [] if job.error is None else [html.P(job.error)]
    refused = [html.P(f"{name}: {why}") for name, why in job.refused.items()]
    name: dict[str, Any] = {"aria-label": "Log"}
    many = job.state == "done" and job.n_prompts > 1
    whole = (
        [html.P(html.A("Results over all prompts", href=f"/sets/?job={job.id}"))] if many else []
    )
    shown = html.Pre(log or "Nothing logged.", tabIndex=0, className="log", **name)
    return [html.H2(f"Job {job.id}: {job.state}"), *whole, *error, *refused, html.H3("Log"), shown]

"""The Simulate page: attention as moving particles, run as a job, beside what the theory says."""

from __future__ import annotations

import inspect
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate
from flask import Flask

from app import exports, ids, progress, topbar
from app.bench import Bench
from app.frame import layout, new_app
from app.measuring import pending
from app.panels.forms import plain_field
from app.parts import alert, choice, in_browser, notice
from app.simulations import configured, defaults, kinds, link_of, read_link, texts_of
from app.state import Pending
from app.summaries.view import EXPORT, drawn
from workbench import WorkbenchError
from workbench.jobs import Job
from workbench.jobs.plain import simulation_of
from workbench.settings import settings_of

__all__ = ["mount"]

EXPERIMENT = "experiment"
FIELD, FORM = "simulation-setting", "simulation-form"
RUN = "run-simulation"
HEAD, BODY = "simulation-head", "simulation-body"
ROWS = "simulation-rows"
JOB = "job"  # in a link
WITHOUT = r"(.*\.txt|panels\.js|selection.*|subject.*)"  # this page has no selection
SAID = (
    "Tokens are unit vectors that attention moves, depth is time, and no model is loaded. It is a "
    "simulation of the theory, not a measurement of a model."
)


def mount(server: Flask, bench: Bench) -> None:
    """Puts the page at /simulate/."""
    app = new_app(server, "/simulate/", "Simulate - Workbench", without=WITHOUT)
    app.layout = layout([topbar.plain("Simulate"), progress.layout()], _main())
    topbar.register_plain(app, bench, Input(ids.JOB, "data"))
    progress.register_row(app, bench)
    progress.register_polling(app, bench)
    _register_asking(app, bench)
    _register_results(app, bench)


def _main() -> list[Any]:
    options = [{"value": name, "label": kind.title} for name, kind in kinds().items()]
    rows = dmc.Button("All rows as CSV", id=ROWS, n_clicks=0, size="xs", variant="default")
    return [
        html.H2("1. Experiment", className="step"),
        html.P(SAID, className="said"),
        dmc.Box(choice(EXPERIMENT, "Experiment", options, options[0]["value"]), w=220),
        *(_form(name, number == 0) for number, name in enumerate(kinds())),
        html.H2("2. Run", className="step"),
        html.Div(id=ids.ALERT),
        dmc.Button("Run as a job", id=RUN, n_clicks=0, size="xs"),
        html.Div(
            [
                html.H2("3. Result", className="step"),
                html.Div(id=HEAD),
                rows,
                html.Div(id=BODY, className="set-body"),
            ],
            id=ids.STAGE,
            hidden=True,
        ),
        dcc.Store(id=ids.JOB),
        dcc.Store(id=ids.RUN),
        dcc.Download(id=exports.DOWNLOAD),
    ]


def _form(name: str, shown: bool) -> html.Div:
    """What the experiment is, and a field for each of its settings."""
    texts, kind = defaults(name), kinds()[name]
    fields = [
        plain_field({"type": FIELD, "experiment": name, "setting": it.name}, it, texts[it.name])
        for it in settings_of(kind)
    ]
    said = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:")[0].split("\n\n")
    return html.Div(
        [
            *(html.P(" ".join(part.split()), className="said") for part in said),
            dmc.Group(fields, align="flex-start", gap="sm", className="settings"),
        ],
        id={"type": FORM, "experiment": name},
        hidden=not shown,
    )


def _register_asking(app: dash.Dash, bench: Bench) -> None:
    fields = {"type": FIELD, "experiment": ALL, "setting": ALL}

    @app.callback(
        Output({"type": FORM, "experiment": ALL}, "hidden"),
        Input(EXPERIMENT, "value"),
        State({"type": FORM, "experiment": ALL}, "id"),
    )
    def show(name: str, forms: list[dict[str, str]]) -> list[bool]:
        """Only the chosen experiment has its form."""
        return [form["experiment"] != name for form in forms]

    @app.callback(
        Output(ids.JOB, "data", allow_duplicate=True),
        Output(ids.ALERT, "children", allow_duplicate=True),
        Input(RUN, "n_clicks"),
        State(EXPERIMENT, "value"),
        State(fields, "value"),
        State(fields, "id"),
        running=[(Output(RUN, "loading"), True, False)],
        prevent_initial_call=True,
    )
    def run(
        clicks: int, name: str, values: list[str | None], names: list[dict[str, str]]
    ) -> tuple[Any, Any]:
        """Queues the experiment; this page follows it, and so does the Jobs page."""
        if not clicks:
            raise PreventUpdate
        given = zip(names, values, strict=True)
        texts = {of["setting"]: text or "" for of, text in given if of["experiment"] == name}
        return _queued(bench, name, texts)

    @app.callback(
        Output(EXPERIMENT, "value"),
        Output(fields, "value"),
        Output(ids.JOB, "data"),
        Output(ids.ALERT, "children"),
        Input("url", "search"),
        State(fields, "id"),
    )
    def open_page(search: str | None, names: list[dict[str, str]]) -> tuple[Any, ...]:
        """Fills the form with what the address says, and runs it, or shows the job that it names."""
        name, texts = read_link(search or "")
        same = [no_update] * len(names)
        try:
            if JOB in texts:
                job = bench.simulation(texts[JOB])
                simulation = simulation_of(job.instruments[0])
                name, texts, answer = simulation.name, texts_of(simulation), (pending(job), None)
            elif name:
                answer = _queued(bench, name, texts)
            else:
                raise PreventUpdate
        except WorkbenchError as error:
            return no_update, same, no_update, alert(str(error))
        if name not in kinds():
            return no_update, same, *answer
        shown = defaults(name) | texts
        values = [shown[of["setting"]] if of["experiment"] == name else no_update for of in names]
        return name, values, *answer


def _queued(bench: Bench, name: str, texts: dict[str, str]) -> tuple[Any, Any]:
    """The job as the page keeps it, or what is wrong with what was asked."""
    try:
        return pending(bench.simulate(configured(name, texts))), None
    except WorkbenchError as error:
        return no_update, alert(str(error))


def _register_results(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(ids.RUN, "data"),
        Output(ids.ALERT, "children", allow_duplicate=True),
        Input(ids.JOB, "data"),
        prevent_initial_call=True,
    )
    def take(job: dict[str, Any] | None) -> tuple[Any, Any]:
        """What a job that is done has simulated."""
        if job is None or Pending.of(job).going:
            raise PreventUpdate
        found = bench.desk.job(job["job"])
        if found.state == "done":
            return _finished(found), None
        said = notice("Cancelled: nothing was kept.") if found.state == "cancelled" else None
        return no_update, said or alert(str(found.error))

    in_browser(app, "simulationAddress", Input(ids.RUN, "data"))

    @app.callback(
        Output(ids.STAGE, "hidden"),
        Output(HEAD, "children"),
        Output(BODY, "children"),
        Input(ids.RUN, "data"),
        Input(ids.THEME, "forceColorScheme"),
        prevent_initial_call=True,
    )
    def draw(shown: dict[str, Any] | None, theme: str) -> tuple[Any, Any, Any]:
        """The figure that `workbench simulate` draws."""
        if shown is None:
            raise PreventUpdate
        try:
            figure = bench.desk.result(shown["key"]).plot(theme)
        except WorkbenchError as error:
            return False, None, alert(str(error))
        said = html.P(f"Job {shown['job']}: {shown['said']}.", className="said")
        return False, said, drawn(shown["name"], kinds()[shown["name"]].title, figure)

    @app.callback(
        Output(exports.DOWNLOAD, "data"),
        Output(ids.ALERT, "children", allow_duplicate=True),
        Input(ROWS, "n_clicks"),
        Input({"type": EXPORT, "figure": ALL, "kind": ALL}, "n_clicks"),
        State(ids.RUN, "data"),
        State(ids.THEME, "forceColorScheme"),
        prevent_initial_call=True,
    )
    def export(_: int, __: list[int], shown: dict[str, Any] | None, theme: str) -> tuple[Any, Any]:
        """The figure as it is shown, or all rows."""
        if shown is None or not ctx.triggered[0]["value"]:
            raise PreventUpdate
        try:
            result = bench.desk.result(shown["key"])
            if ctx.triggered_id == ROWS:
                return exports.file_of(result.to_frame(), f"{shown['name']}.csv"), None
            assert ctx.triggered_id is not None
            kind = ctx.triggered_id["kind"]
            return exports.file_of(result.plot(theme), f"{shown['name']}.{kind}"), None
        except WorkbenchError as error:
            return no_update, alert(str(error))


def _finished(job: Job) -> dict[str, Any]:
    """A finished simulation, as the page keeps it."""
    simulation = simulation_of(job.instruments[0])
    settings = ", ".join(f"{name} {text}" for name, text in texts_of(simulation).items())
    return {
        "job": job.id,
        "name": simulation.name,
        "key": job.results[simulation.name],
        "link": link_of(simulation),
        "said": f"{job.title}, {settings}",
    }

"""The Prompt sets page: choose or upload many prompts, and have them measured as a job."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, ctx, dcc, html, no_update
from flask import Flask

from app import ids, topbar
from app.bench import Bench
from app.frame import layout, new_app
from app.instruments import ALWAYS, kinds
from app.panels import forms
from app.parts import alert, choice
from app.uploads import LARGEST, bundled, require_size, uploaded
from workbench import PromptSet, WorkbenchError
from workbench.atlas import PROMPTS
from workbench.figures import shorten
from workbench.prompts import SUFFIXES

__all__ = ["mount"]

SET = "set"  # data: {"id": under which it is kept, "name": ...}
BUNDLED = "bundled"
UPLOAD = "upload"
TOO_LARGE = "too-large"  # data: {"name", "size"} of a file that the browser does not send
PREVIEW = "preview"
INSTRUMENTS = "instruments"
RUN = "run-set"
QUEUED = "queued"
NOTHING = "No prompts chosen yet."
ROWS, LETTERS = 8, 90
WITHOUT = r"(.*\.txt|plotly.*|selection.*)"  # this page has no figures


def mount(server: Flask, bench: Bench) -> None:
    """Puts the page at /sets/."""
    app = new_app(server, "/sets/", "Prompt sets - Workbench", without=WITHOUT)
    app.layout = layout(topbar.plain("Prompt sets"), _main(bench))
    topbar.register_plain(app, bench, Input(QUEUED, "children"))
    forms.register(app)
    _register_choice(app, bench)
    _register_job(app, bench)


def _main(bench: Bench) -> list[Any]:
    return [
        html.H2("1. Prompts", className="step"),
        html.Div([_bundled(), _upload()], className="choices"),
        html.Div(id=ids.ALERT),
        html.Div(NOTHING, id=PREVIEW),
        html.H2("2. Model and instruments", className="step"),
        dmc.Box(choice(ids.MODEL, "Model", bench.names, bench.names[0]), w=200),
        _instruments(),
        *(_settings(name) for name in kinds()),
        html.H2("3. Measure", className="step"),
        dmc.Button("Run as a job", id=RUN, size="xs", disabled=True),
        html.Div(id=QUEUED, role="status"),
        forms.layout(),
        dcc.Store(id=SET),
        dcc.Store(id=TOO_LARGE),
        dcc.Store(id=ids.SETTINGS),
    ]


def _bundled() -> dmc.Select:
    return dmc.Select(
        id=BUNDLED,
        label="Bundled set",
        placeholder="Choose one",
        data=list(PROMPTS),
        size="xs",
        w=200,
    )


def _upload() -> html.Label:
    """The label opens the browser's dialog, and names the field for screen readers."""
    endings = ", ".join(suffix.removeprefix(".").upper() for suffix in SUFFIXES)
    field = dcc.Upload(
        "Choose a file, or drop it here",
        id=UPLOAD,
        max_size=LARGEST,
        disable_click=True,
        className="upload",
    )
    limit: dict[str, Any] = {"data-largest": LARGEST}
    return html.Label([f"or upload {endings}; {LARGEST // 2**20} MB at most", field], **limit)


def _instruments() -> dmc.CheckboxGroup:
    boxes = [
        dmc.Checkbox(label=kind.title, value=name, size="xs") for name, kind in kinds().items()
    ]
    return dmc.CheckboxGroup(
        dmc.Group(boxes, my=6), id=INSTRUMENTS, label="Instruments", value=[ALWAYS], size="xs"
    )


def _settings(name: str) -> html.Div:
    head = html.Summary(f"Settings of {kinds()[name].title}")
    folded = html.Details([head, forms.form(name)])
    return html.Div(folded, id={"type": "form", "instrument": name}, hidden=name != ALWAYS)


def _register_choice(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(SET, "data"),
        Output(PREVIEW, "children"),
        Output(ids.ALERT, "children"),
        Output(RUN, "disabled"),
        Input(BUNDLED, "value"),
        Input(UPLOAD, "contents"),
        State(UPLOAD, "filename"),
        Input(TOO_LARGE, "data"),
        prevent_initial_call=True,
    )
    def choose(
        name: str | None, contents: str | None, filename: str | None, unsent: Any
    ) -> tuple[Any, ...]:
        """Reads the set, keeps it, and shows how it begins; after a bad file none is chosen."""
        called = str(filename if ctx.triggered_id == UPLOAD else name)
        try:
            if ctx.triggered_id == TOO_LARGE:
                require_size(unsent["name"], unsent["size"])
            from_file = ctx.triggered_id == UPLOAD
            prompts = uploaded(called, str(contents)) if from_file else bundled(called)
            kept = {"id": bench.desk.keep(prompts), "name": called}
        except WorkbenchError as error:
            return None, NOTHING, alert(str(error)), True
        return kept, _preview(called, prompts), None, False

    @app.callback(
        Output({"type": "form", "instrument": ALL}, "hidden"),
        Input(INSTRUMENTS, "value"),
    )
    def show(chosen: list[str]) -> list[bool]:
        """Only what is measured has settings."""
        return [name not in chosen for name in kinds()]


def _register_job(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(QUEUED, "children"),
        Output(ids.ALERT, "children", allow_duplicate=True),
        Input(RUN, "n_clicks"),
        State(SET, "data"),
        State(ids.MODEL, "value"),
        State(INSTRUMENTS, "value"),
        State(ids.SETTINGS, "data"),
        running=[(Output(RUN, "loading"), True, False)],
        prevent_initial_call=True,
    )
    def queue(
        _: int, kept: dict[str, str], model: str, chosen: list[str], settings: Any
    ) -> tuple[Any, Any]:
        """Queues the job; the Jobs page follows it."""
        try:
            number = bench.queue(model, kept["id"], kept["name"], chosen, settings or {})
        except WorkbenchError as error:
            return no_update, alert(str(error))
        said = [f"Job {number} is queued: ", html.A("see how far it is", href="/jobs/"), "."]
        return said, None


def _preview(name: str, prompts: PromptSet) -> list[Any]:
    """Name, count and the first rows of a set."""
    fields = ("text", "target", "foil", "subject")
    named = zip(prompts.names[:ROWS], prompts[:ROWS], strict=True)
    rows = [
        html.Tr([html.Td(str(called)), *(html.Td(_short(getattr(one, f))) for f in fields)])
        for called, one in named
    ]
    head = html.Tr([html.Th(column) for column in ("id", *fields)])
    count = "1 prompt" if len(prompts) == 1 else f"{len(prompts):,} prompts"
    more = f", the first {ROWS} of them:" if len(prompts) > ROWS else ":"
    return [html.P(f"{name}: {count}{more}"), html.Table([html.Thead(head), html.Tbody(rows)])]


def _short(value: Any) -> str:
    return "" if value is None else shorten(" ".join(str(value).split()) or "·", LETTERS)

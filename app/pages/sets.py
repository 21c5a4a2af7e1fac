"""The Prompt sets page: choose or upload many prompts, have them measured as a job, see what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, ctx, dcc, html, no_update
from flask import Flask

from app import ids, progress, set_results, topbar
from app.bench import Bench
from app.frame import layout, new_app
from app.instruments import ALWAYS, kinds
from app.measuring import pending
from app.panels import forms
from app.parts import alert, choice
from app.uploads import LARGEST, PASTED, bundled, offered, pasted, require_size, uploaded
from workbench import PromptSet, WorkbenchError
from workbench.figures import shorten
from workbench.prompts import SUFFIXES

__all__ = ["mount"]

SET = "set"  # data: {"id": under which it is kept, "name": ...}
BUNDLED = "bundled"
UPLOAD = "upload"
PASTE, USE = "paste", "use-pasted"
TOO_LARGE = "too-large"  # data: {"name", "size"} of a file that the browser does not send
PREVIEW = "preview"
INSTRUMENTS = "instruments"
RUN = "run-set"
QUEUED = set_results.QUEUED
NOTHING = "No prompts chosen yet."
ROWS, LETTERS = 8, 90
WITHOUT = r"(.*\.txt|selection.*)"  # this page has no selection


def mount(server: Flask, bench: Bench) -> None:
    """Puts the page at /sets/."""
    app = new_app(server, "/sets/", "Prompt sets - Workbench", without=WITHOUT)
    head = [topbar.plain("Prompt sets"), progress.layout()]
    app.layout = layout(head, _main(bench))
    topbar.register_plain(app, bench, Input(QUEUED, "children"))
    forms.register(app, bench)
    _register_choice(app, bench)
    _register_job(app, bench)
    set_results.register(app, bench)


def _main(bench: Bench) -> list[Any]:
    return [
        html.H2("1. Prompts", className="step"),
        html.Div([_bundled(), _upload()], className="choices"),
        _paste(),
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
        *set_results.layout(),
    ]


def _bundled() -> dmc.Select:
    return dmc.Select(
        id=BUNDLED,
        label="Bundled set",
        placeholder="Choose one",
        data=offered(),
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


def _paste() -> html.Details:
    """A field for prompts that are in no file."""
    field = dmc.Textarea(
        id=PASTE,
        label='A prompt a line; lines of JSON where the first begins with "{"',
        autosize=True,
        minRows=3,
        maxRows=10,
        size="xs",
        maw=760,
    )
    button = dmc.Button("Use these lines", id=USE, n_clicks=0, size="xs", variant="default", mt=6)
    return html.Details([html.Summary("or paste lines"), field, button], className="fold")


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
        Input(USE, "n_clicks"),
        State(PASTE, "value"),
        prevent_initial_call=True,
    )
    def choose(
        name: str | None,
        contents: str | None,
        filename: str | None,
        unsent: Any,
        _: int,
        lines: str | None,
    ) -> tuple[Any, ...]:
        """Reads the set, keeps it, and shows how it begins; after a bad file none is chosen."""
        names = {UPLOAD: filename, USE: PASTED}
        called = str(names.get(ctx.triggered_id, name))
        read: dict[str, Callable[[], PromptSet]] = {
            BUNDLED: lambda: bundled(called),
            UPLOAD: lambda: uploaded(called, str(contents)),
            USE: lambda: pasted(lines or ""),
        }
        try:
            if ctx.triggered_id == TOO_LARGE:
                require_size(unsent["name"], unsent["size"])
            prompts = read.get(str(ctx.triggered_id), read[BUNDLED])()
            kept = {"id": bench.desk.keep(prompts, called), "name": called}
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
        Output(ids.JOB, "data"),
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
        """Queues the job; this page follows it, and so does the Jobs page."""
        try:
            number = bench.queue(model, kept["id"], kept["name"], chosen, settings or {})
        except WorkbenchError as error:
            return no_update, alert(str(error))
        return pending(bench.desk.job(number)), None


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

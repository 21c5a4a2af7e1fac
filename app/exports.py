"""The page's figure and cells as files."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Input, Output, State, ctx, dcc, html, no_update

from app import ids
from app.bench import Bench
from app.parts import alert
from app.state import Run, Selection
from lenses.logit_figures import figure
from workbench import Result, WorkbenchError
from workbench.figures import save_figure

__all__ = ["menu", "register"]

FIGURES = ("png", "svg", "pdf", "html")
DOWNLOAD = "download"


def menu() -> html.Details:
    """A list of formats that folds out; the browser's own, so that every keyboard can use it."""
    entries = [(f"export-{kind}", f"Figure as {kind.upper()}") for kind in FIGURES]
    entries.append(("export-csv", "All cells as CSV"))
    buttons = [
        dmc.Button(text, id=name, n_clicks=0, size="xs", variant="subtle", justify="flex-start")
        for name, text in entries
    ]
    folded = [html.Summary("Export"), html.Div(buttons), dcc.Download(id=DOWNLOAD)]
    return html.Details(folded, className="menu beside")


def register(app: dash.Dash, bench: Bench) -> None:
    """One callback for all formats."""
    kinds = [f"export-{kind}" for kind in (*FIGURES, "csv")]

    @app.callback(
        Output(DOWNLOAD, "data"),
        Output(ids.ALERT, "children", allow_duplicate=True),
        *(Input(kind, "n_clicks") for kind in kinds),
        State(ids.RUN, "data"),
        State(ids.SELECTION, "data"),
        State(ids.COLOUR, "value"),
        State(ids.THEME, "forceColorScheme"),
        running=[(Output(ids.STATUS, "children"), "Writing the file", "")],
        prevent_initial_call=True,
    )
    def export(*values: Any) -> tuple[Any, Any]:
        run, selection, colour, theme = values[len(kinds) :]
        if run is None:
            return no_update, alert("Nothing to export: measure a prompt first.")
        result = bench.measure(Run.of(run).asked)
        kind = str(ctx.triggered_id).removeprefix("export-")
        try:
            return _file(result, kind, Selection(**selection), colour, theme), None
        except WorkbenchError as error:
            return no_update, alert(str(error))


def _file(result: Result, kind: str, at: Selection, colour: str, theme: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"logit_lens.{kind}"
        if kind == "csv":
            result.save(path)
        else:
            save_figure(_figure(result, at, colour, theme), path)
        content = base64.b64encode(path.read_bytes()).decode()
    return {"content": content, "filename": path.name, "base64": True}


def _figure(result: Result, at: Selection, colour: str, theme: str) -> go.Figure:
    return figure(
        result.data,
        theme=theme,
        colour=colour,
        prompt=at.prompt,
        site=at.site,
        selected=(at.layer, at.position),
    )

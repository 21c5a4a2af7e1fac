"""The tab in front as a file: its figure, or its rows."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import Input, Output, State, ctx, dcc, html, no_update

from app import ids
from app.bench import Bench
from app.panels.tab import Tab
from app.parts import alert
from app.state import Run, Selection, Shown
from workbench import ResultError, WorkbenchError
from workbench.figures import save_figure

__all__ = ["DOWNLOAD", "FIGURES", "file_of", "menu", "register"]

FIGURES = ("png", "svg", "pdf", "html")
DOWNLOAD = "download"


def menu() -> html.Details:
    """A list of formats that folds out; the browser's own, so that every keyboard can use it."""
    entries = [(f"export-{kind}", f"Figure as {kind.upper()}") for kind in FIGURES]
    entries.append(("export-csv", "All rows as CSV"))
    buttons = [
        dmc.Button(text, id=name, n_clicks=0, size="xs", variant="subtle", justify="flex-start")
        for name, text in entries
    ]
    folded = [html.Summary("Export"), html.Div(buttons), dcc.Download(id=DOWNLOAD)]
    return html.Details(folded, className="menu")


def register(app: dash.Dash, bench: Bench, tabs: Sequence[Tab]) -> None:
    """One callback for all formats; what is written is the tab in front."""
    kinds = [f"export-{kind}" for kind in (*FIGURES, "csv")]
    by_name = {tab.name: tab for tab in tabs}
    linked = {name: control for tab in tabs for name, control in tab.linked.items()}

    @app.callback(
        Output(DOWNLOAD, "data"),
        Output(ids.ALERT, "children", allow_duplicate=True),
        *(Input(kind, "n_clicks") for kind in kinds),
        State(ids.TAB, "value"),
        State(ids.RUN, "data"),
        State(ids.SELECTION, "data"),
        State(ids.THEME, "forceColorScheme"),
        State(ids.PANELS, "data"),
        *(State(control.id, "value") for control in linked.values()),
        running=[(Output(ids.STATUS, "children"), "Writing the file", "")],
        prevent_initial_call=True,
    )
    def export(*values: Any) -> tuple[Any, Any]:
        tab, run, selection, theme, off, *looks = values[len(kinds) :]
        if run is None:
            return no_update, alert("Nothing to export: measure a prompt first.")
        named = dict(zip(linked, looks, strict=True))
        shown = Shown(Run.of(run), Selection(**selection), theme, tuple(off or ()), named)
        kind = str(ctx.triggered_id).removeprefix("export-")
        try:
            return _file(bench, by_name[tab], kind, shown), None
        except WorkbenchError as error:
            return no_update, alert(str(error))


def _file(bench: Bench, tab: Tab, kind: str, shown: Shown) -> dict[str, Any]:
    """Raises ResultError where the tab has nothing to show."""
    made = (tab.frame if kind == "csv" else tab.figure)(bench, shown)
    if made is None:
        raise ResultError(f"{tab.title}: nothing is measured yet, so there is nothing to export")
    return file_of(made, f"{tab.name}.{kind}")


def file_of(made: go.Figure | pd.DataFrame, name: str) -> dict[str, Any]:
    """A figure or rows as a download; the ending of `name` says how they are written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if isinstance(made, pd.DataFrame):
            made.to_csv(path, index=False)
        else:
            save_figure(made, path)
        content = base64.b64encode(path.read_bytes()).decode()
    return {"content": content, "filename": path.name, "base64": True}

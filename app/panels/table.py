"""The cells of the window as a table: the same numbers for eyes and screen readers alike."""

from __future__ import annotations

import math
from typing import Any

import dash
import dash_ag_grid as dag
from dash import Input, Output, State, html
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.parts import in_browser
from app.state import Run, Selection
from lenses.logit_figures import COLOURS, cells
from workbench.figures import Cells, layer_name, visible

__all__ = ["layout", "register"]

HOLDER = "lens-table-holder"
FOCUS = "lens-focus"


def layout() -> html.Div:
    """The table's place, empty until it is asked for: its code is a large download."""
    return html.Div(id=HOLDER)


def register(app: dash.Dash, bench: Bench) -> None:
    """Shows what the grid shows, in the grid's place; a click on a cell selects it."""
    in_browser(
        app,
        "select",
        Output(ids.SELECTION, "data", allow_duplicate=True),
        Input(ids.TABLE, "cellClicked"),
        State(ids.SELECTION, "data"),
        State(ids.RUN, "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output(HOLDER, "children"),
        Output(FOCUS, "hidden"),
        Input(ids.VIEW, "value"),
        Input(ids.SHOWN, "data"),
        State(ids.RUN, "data"),
        State(ids.SELECTION, "data"),
    )
    def fill(
        view: str, shown: dict[str, Any] | None, run: dict[str, Any], selection: dict[str, Any]
    ) -> tuple[dag.AgGrid | None, bool]:
        if shown is None:
            raise PreventUpdate
        if view != "table":
            return None, False
        _, site, colour, _ = shown["whole"]
        window = cells(
            bench.measure(Run.of(run).asked).data,
            colour=colour,
            prompt=Selection(**selection).prompt,
            site=site,
            layers=shown["layers"],
            positions=slice(*shown["positions"]),
        )
        return _table(window, colour), True


def _table(window: Cells, colour: str) -> dag.AgGrid:
    return dag.AgGrid(
        id=ids.TABLE,
        columnDefs=_columns(window, COLOURS[colour].label),
        rowData=_rows(window, colour),
        getRowId="params.data.layer",
        defaultColDef={"sortable": False, "resizable": True, "width": 130},
        dashGridOptions={"domLayout": "autoHeight"},
        style={"height": None},
    )


def _columns(window: Cells, quantity: str) -> list[dict[str, Any]]:
    tokens = zip(
        window.values["position"].values.tolist(), window.values["token"].values, strict=True
    )
    first = {"field": "layer", "headerName": f"layer ({quantity})", "pinned": "left", "width": 210}
    return [first] + [
        {"field": f"p{position}", "headerName": f"{position} {visible(token)}"}
        for position, token in tokens
    ]


def _rows(window: Cells, colour: str) -> list[dict[str, str]]:
    return [
        {"layer": layer_name(layer)}
        | {
            f"p{position}": _cell(window, layer, position, colour)
            for position in window.values["position"].values.tolist()
        }
        for layer in window.values["layer"].values.tolist()[::-1]
    ]


def _cell(window: Cells, layer: int, position: int, colour: str) -> str:
    at = {"layer": layer, "position": position}
    value = float(window.values.sel(at))
    if math.isnan(value):
        return ""
    return f"{visible(str(window.tokens.sel(at).item()))} {COLOURS[colour].number(value)}"

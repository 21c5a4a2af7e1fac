"""The cells of the window as a table: the same numbers for eyes and screen readers alike."""

from __future__ import annotations

import math
from typing import Any

import dash
from dash import Input, Output, State, html
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.state import Run, Selection
from lenses.logit.figures import COLOURS, cells
from workbench.figures import Cells, layer_name, visible

__all__ = ["FOCUS", "layout", "register"]

FOCUS = "lens-focus"
LABEL = "Logit lens as a table. Arrow keys move the selection; a click on a cell selects it."


def layout() -> html.Div:
    """The table's place, empty until it is asked for."""
    label: dict[str, Any] = {"aria-label": LABEL}
    return html.Div(
        id=ids.TABLE, className="focus", tabIndex=0, role="region", hidden=True, **label
    )


def register(app: dash.Dash, bench: Bench) -> None:
    """Shows what the grid shows, in the grid's place."""

    @app.callback(
        Output(ids.TABLE, "children"),
        Output(ids.TABLE, "hidden"),
        Output(FOCUS, "hidden"),
        Input(ids.VIEW, "value"),
        Input(ids.SHOWN, "data"),
        State(ids.RUN, "data"),
        State(ids.SELECTION, "data"),
        prevent_initial_call=True,
    )
    def fill(
        view: str, shown: dict[str, Any] | None, run: dict[str, Any], selection: dict[str, Any]
    ) -> tuple[Any, bool, bool]:
        if shown is None:
            raise PreventUpdate
        if view != "table":
            return None, True, False
        *_, prompt, site, colour, _ = shown["whole"]
        result = bench.result(Run.of(run), "logit_lens")
        assert result is not None
        window = cells(
            result.data,
            colour=colour,
            prompt=prompt,
            site=site,
            layers=shown["layers"],
            positions=shown["positions"],
        )
        return _table(window, colour, Selection(**selection)), False, True


def _table(window: Cells, colour: str, at: Selection) -> html.Table:
    head = html.Tr([html.Th(f"layer ({COLOURS[colour].label})", scope="col"), *_tokens(window)])
    layers = window.values["layer"].values.tolist()[::-1]
    rows = [_row(window, layer, colour, at) for layer in layers]
    return html.Table([html.Thead(head), html.Tbody(rows)], className="layers-table")


def _tokens(window: Cells) -> list[html.Th]:
    tokens = zip(
        window.values["position"].values.tolist(), window.values["token"].values, strict=True
    )
    return [html.Th(f"{position} {visible(token)}", scope="col") for position, token in tokens]


def _row(window: Cells, layer: int, colour: str, at: Selection) -> html.Tr:
    positions = window.values["position"].values.tolist()
    found = [_cell(window, layer, position, colour, at) for position in positions]
    return html.Tr([html.Th(layer_name(layer), scope="row"), *found])


def _cell(window: Cells, layer: int, position: int, colour: str, at: Selection) -> html.Td:
    """A click on it selects its place (see assets/selection.js)."""
    place: dict[str, Any] = {"data-layer": str(layer), "data-position": str(position)}
    if (layer, position) == (at.layer, at.position):
        place["aria-current"] = "true"
    return html.Td(_text(window, layer, position, colour), **place)


def _text(window: Cells, layer: int, position: int, colour: str) -> str:
    at = {"layer": layer, "position": position}
    value = float(window.values.sel(at))
    if math.isnan(value):
        return ""
    return f"{visible(str(window.tokens.sel(at).item()))} {COLOURS[colour].number(value)}"

"""The rows of one prompt's result as a table, a page of them at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import dash
import dash_mantine_components as dmc
import numpy as np
import xarray as xr
from dash import Input, Output, State, html
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.instruments import kinds
from app.state import Run, Selection
from workbench import Result
from workbench.figures import visible

__all__ = ["MOST", "layout", "register", "rows_of", "texts"]

MOST = 2000  # rows on all pages
PAGE = 100  # rows on one


def layout(identifier: dict[str, str], result: Result, prompt: int | str) -> list[Any]:
    """The first page, what turns the pages, and a line where they do not hold all rows."""
    rows = list(rows_of(result, prompt))
    label: dict[str, Any] = {"aria-label": f"Rows of {result.instrument}"}
    place = html.Div(
        _table(texts(iter(rows)), 1),
        id=identifier,
        className="rows",
        tabIndex=0,
        role="region",
        **label,
    )
    pages = -(-min(len(rows), MOST) // PAGE)
    turning = dmc.Pagination(
        id=_turning(identifier), total=pages, value=1, size="xs", withControls=False
    )
    shown = [place, html.Div(turning, hidden=pages < 2, className="note")]
    if len(rows) <= MOST:
        return shown
    more = f"The first {MOST:,} of {len(rows):,} rows. Export has all of them as CSV."
    return [*shown, html.P(more, className="note")]


def register(app: dash.Dash, bench: Bench, instrument: str, identifier: dict[str, str]) -> None:
    """Turns the pages."""

    @app.callback(
        Output(identifier, "children"),
        Input(_turning(identifier), "value"),
        State(ids.RUN, "data"),
        State(ids.SELECTION, "data"),
        prevent_initial_call=True,
    )
    def turn(page: int, run: dict[str, Any], selection: dict[str, Any]) -> html.Table:
        result = bench.result(Run.of(run), instrument)
        if result is None:
            raise PreventUpdate
        return _table(texts(rows_of(result, Selection(**selection).prompt)), page)


def _turning(identifier: dict[str, str]) -> dict[str, str]:
    return identifier | {"type": "pages"}


def _table(rows: Sequence[dict[str, str]], page: int) -> html.Table:
    """One page. Rows of other axes have other columns, so all rows are looked at for their names."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = html.Tr([html.Th(name, scope="col") for name in names])
    body = [
        html.Tr([html.Td(row.get(name, "")) for name in names])
        for row in rows[(page - 1) * PAGE : page * PAGE]
    ]
    return html.Table([html.Thead(head), html.Tbody(body)], className="layers-table")


def rows_of(result: Result, prompt: int | str) -> Iterator[dict[str, Any]]:
    """The tidy rows of one prompt, or all of them where the result has no prompts."""
    return kinds()[result.instrument].rows(_of_prompt(result.data, prompt))


def texts(rows: Iterator[dict[str, Any]]) -> list[dict[str, str]]:
    """The first rows as the table shows them."""
    return [{k: _text(v) for k, v in row.items()} for row in islice(rows, MOST)]


def _of_prompt(data: xr.Dataset, prompt: int | str) -> xr.Dataset:
    if "prompt" in data.dims:
        data = data.sel(prompt=[prompt])
    if "place" in data.dims:
        data = data.isel(place=np.flatnonzero(data["prompt"].values == prompt))
    return data


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value if value == value.strip() else visible(value)
    if isinstance(value, float):
        return f"{value + 0.0:.6g}"  # not "-0"
    if _is_pairs(value):
        return ", ".join(f"{visible(str(token))} {score:.4g}" for token, score in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _is_pairs(value: Any) -> bool:
    """Whether it is a list of (token, number), as tables of tokens are."""
    return isinstance(value, list) and all(
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], float)
        for pair in value
    )

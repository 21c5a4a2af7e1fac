"""Any instrument over a prompt set: what its report section says, its figure, and a layer's facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
import polars as pl
from dash import Input, Output, State, html
from dash.exceptions import PreventUpdate

from app.bench import Bench
from app.instruments import kinds
from app.summaries.view import SetView, drawn
from workbench import Result, ResultError
from workbench.instrument import SetLevel
from workbench.report.sections import Headline, Listing, Section
from workbench.report.tables import frame
from workbench.report.words import amount, cell, interval

__all__ = ["VIEW", "listings", "remarks"]

FACTS = "set-facts"
LAYER = "set-layer"
OF = "set-facts-of"  # data: the key of the result
MOST = 100_000  # rows that are averaged while a person waits
ROWS = 40
WHOLE = "whole"


def layout(key: str, result: Result, theme: str) -> list[Any]:
    """Remarks, headlines, figures, facts of a layer, and tables."""
    if _rows(result) > MOST:
        return [html.P(_too_many(result))]
    section, kind = _section(result), kinds()[result.instrument]
    found = [*remarks(section.remarks), *_headlines(section.headlines)]
    if issubclass(kind, SetLevel):
        found.append(drawn(WHOLE, kind.title, kind.figure(result.data, theme=theme)))
        found += _facts(key, result)
    else:
        for number, plot in enumerate(section.plots):
            found += [html.H3(plot.title), html.P(plot.caption, className="said")]
            found.append(drawn(str(number), plot.title, plot.figure))
    return [*found, *listings(section.listings)]


def figure(result: Result, name: str, theme: str, _: Mapping[str, Any]) -> go.Figure:
    """The figure called so.

    Raises:
        ResultError: there is none.
    """
    if name == WHOLE:
        return kinds()[result.instrument].figure(result.data, theme=theme)
    plots = _section(result).plots
    if not name.isdecimal() or int(name) >= len(plots):
        raise ResultError(f"{result.instrument} has no figure {name}")
    return plots[int(name)].figure


def _section(result: Result) -> Section:
    kind = kinds()[result.instrument]
    rows = frame(kind.rows(result.data)).lazy()
    return kind.section(rows, result.data if issubclass(kind, SetLevel) else None)


def _rows(result: Result) -> int:
    """About how many rows there are; a set-level result has few."""
    if issubclass(kinds()[result.instrument], SetLevel):
        return 0
    return max((int(one.size) for one in result.data.data_vars.values()), default=0)


def _too_many(result: Result) -> str:
    return (
        f"About {_rows(result):,} numbers: too many to average here. `workbench report` does, and the "
        "Inspector shows them prompt by prompt."
    )


def remarks(lines: Sequence[str]) -> list[Any]:
    """Paragraphs."""
    return [html.P(line, className="said") for line in lines]


def _headlines(found: Sequence[Headline]) -> list[Any]:
    if not found:
        return []
    head = ("Over the prompts", "Value", "95% interval", "Prompts", "Interval is")
    rows = [(it.label, amount(it, it.value), interval(it), f"{it.n}", it.note) for it in found]
    return [_table(head, rows)]


def listings(found: Sequence[Listing]) -> list[Any]:
    """Tables, each of its first rows."""
    return [part for one in found for part in _listing(one.title, one.caption, one.table)]


def _listing(title: str, caption: str, table: pl.DataFrame) -> list[Any]:
    rows = [[cell(value) for value in row] for row in table.head(ROWS).rows()]
    more = f" The first {ROWS} of {len(table):,} rows." if len(table) > ROWS else ""
    label: dict[str, Any] = {"aria-label": title}
    shown = html.Div(
        _table(table.columns, rows), className="scroll", tabIndex=0, role="region", **label
    )
    return [html.H3(title), html.P(f"{caption}{more}", className="said"), shown]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> html.Table:
    names = html.Tr([html.Th(name.replace("_", " "), scope="col") for name in head])
    body = [html.Tr([html.Td(text) for text in row]) for row in rows]
    return html.Table([html.Thead(names), html.Tbody(body)])


def _facts(key: str, result: Result) -> list[Any]:
    """A list of layers, and what is known of the chosen one."""
    if "layer" not in result.data.dims:
        return []
    layers = [str(layer) for layer in result.data["layer"].values.tolist()]
    chosen = dmc.Select(
        id={"type": LAYER, "key": key},
        label="Facts of layer",
        data=layers,
        value=layers[-1],
        size="xs",
        w=120,
        allowDeselect=False,
    )
    return [chosen, html.Dl(id={"type": FACTS, "key": key}, className="facts narrow")]


def register(app: dash.Dash, bench: Bench) -> None:
    """The facts of a layer."""

    @app.callback(
        Output({"type": FACTS, "key": dash.MATCH}, "children"),
        Input({"type": LAYER, "key": dash.MATCH}, "value"),
        State({"type": LAYER, "key": dash.MATCH}, "id"),
    )
    def tell(layer: str | None, of: dict[str, str]) -> list[Any]:
        if layer is None:
            raise PreventUpdate
        result = bench.desk.result(of["key"])
        known = kinds()[result.instrument].facts(result.data, layer=int(layer))
        return [html.Div([html.Dt(name), html.Dd(value)]) for name, value in known]


VIEW = SetView(layout, figure, register)

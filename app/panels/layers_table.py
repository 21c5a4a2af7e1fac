"""The panels of the layer axis as a table: one row a layer, the top layer first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import xarray as xr
from dash import html

from workbench.figures import Bars, Heat, Line, Lines, Panel, Words, layer_name, visible

__all__ = ["Column", "columns", "records", "table"]

MOST = 48  # columns on the page


@dataclass(frozen=True)
class Column:
    """What one line, token or part of a panel says: a text for each layer that it has."""

    instrument: str
    panel: str
    name: str
    cells: Mapping[int, str]


def columns(groups: Mapping[str, Sequence[Panel]], position: int) -> list[Column]:
    """All columns of these panels; of a panel by position, that of `position`."""
    return [
        Column(title, panel.title, name, cells)
        for title, panels in groups.items()
        for panel in panels
        for name, cells in _of_panel(panel, position)
    ]


def records(found: Sequence[Column]) -> list[dict[str, Any]]:
    """The same as plain rows, for a file."""
    return [
        {"layer": layer}
        | {f"{it.instrument}: {it.panel}: {it.name}": it.cells.get(layer, "") for it in found}
        for layer in _layers(found)
    ]


def table(found: Sequence[Column], selected: int) -> list[Any]:
    """The first columns as a table, and a line that says how many more there are."""
    shown = found[:MOST]
    rows = [_row(shown, layer, layer == selected) for layer in _layers(shown)]
    drawn = html.Table([_head(shown), html.Tbody(rows)], className="layers-table")
    if len(found) == len(shown):
        return [drawn]
    more = f"{len(found) - len(shown):,} more columns: Export has all of them as CSV."
    return [drawn, html.P(more, className="note")]


def _layers(found: Sequence[Column]) -> list[int]:
    return sorted({layer for column in found for layer in column.cells}, reverse=True)


def _head(shown: Sequence[Column]) -> html.Thead:
    panels = [
        html.Th(f"{title}: {panel}", colSpan=len(list(those)), scope="colgroup")
        for (title, panel), those in groupby(shown, lambda it: (it.instrument, it.panel))
    ]
    names = [html.Th(column.name, scope="col") for column in shown]
    corner = html.Th("layer", rowSpan=2, scope="col")
    return html.Thead([html.Tr([corner, *panels]), html.Tr(names)])


def _row(shown: Sequence[Column], layer: int, selected: bool) -> html.Tr:
    marked: dict[str, Any] = {"data-layer": str(layer)}
    if selected:
        marked["aria-current"] = "true"
    cells = [html.Td(column.cells.get(layer, "")) for column in shown]
    return html.Tr([html.Th(layer_name(layer), scope="row"), *cells], **marked)


def _of_panel(panel: Panel, position: int) -> Iterator[tuple[str, dict[int, str]]]:
    if isinstance(panel, Lines):
        for name, line in panel.lines.items():
            yield f"{name} (control)" if line.control else name, _line(line)
    elif isinstance(panel, Words):
        yield from _words(panel)
    else:
        yield from _parts(panel, position)


def _line(line: Line) -> dict[int, str]:
    texts = _texts(line.values)
    if line.low is None or line.high is None:
        return texts
    low, high = _texts(line.low), _texts(line.high)
    return {
        layer: f"{text} ({low[layer]} to {high[layer]})" if text else ""
        for layer, text in texts.items()
    }


def _words(panel: Words) -> Iterator[tuple[str, dict[int, str]]]:
    other = str(panel.tokens.dims[1])
    for column in panel.tokens[other].values.tolist():
        texts, values = panel.tokens.sel({other: column}), panel.values.sel({other: column})
        yield (
            f"{other} {column}",
            {
                layer: f"{visible(str(texts.sel(layer=layer).item()))} {number}"
                for layer, number in _texts(values).items()
                if number
            },
        )


def _parts(panel: Heat | Bars, position: int) -> Iterator[tuple[str, dict[int, str]]]:
    """Every part, but of positions the selected one alone."""
    other = str(panel.values.dims[1])
    for part in panel.values[other].values.tolist():
        if other != "position" or part == position:
            yield f"{other} {part}", _texts(panel.values.sel({other: part}))


def _texts(values: xr.DataArray) -> dict[int, str]:
    texts = map(_number, values.values.tolist())
    return dict(zip(values["layer"].values.tolist(), texts, strict=True))


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else ""

"""The tab of any instrument: its settings, a button that runs it, its figure, and its rows."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import dash
import plotly.graph_objects as go
from dash import Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from app.bench import Bench
from app.instruments import kinds
from app.panels import front, own_run, rows_table
from app.panels.groups import not_measured
from app.panels.selection import selects
from app.panels.sizes import HEIGHT, style
from app.panels.tab import Linked, Tab
from app.parts import choice, graph
from app.state import Selection, Shown
from workbench import Result, WorkbenchError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["figure", "frame", "tab"]

NOTHING = (no_update, no_update, True, None, True, None)  # neither figure nor table


def tab(instrument: str) -> Tab:
    """The tab of the instrument called so."""
    return Tab(
        instrument,
        kinds()[instrument].title,
        functools.partial(_layout, instrument),
        functools.partial(_register, instrument),
        functools.partial(figure, instrument),
        functools.partial(frame, instrument),
        _linked(instrument),
    )


def _part(instrument: str, part: str) -> dict[str, str]:
    return {"type": part, "instrument": instrument}


def _shows(instrument: str) -> str:
    """The list of figures, where there are several."""
    return f"{instrument}-shows"


def _look(instrument: str) -> str:
    """What the address calls the figure that is chosen."""
    return f"{instrument}_shows"


def _linked(instrument: str) -> dict[str, Linked]:
    known = kinds()[instrument].figures
    return {_look(instrument): Linked(_shows(instrument), list(known))} if known else {}


def _choice(instrument: str) -> list[html.Div]:
    """One figure of several; nothing where there is one."""
    known = kinds()[instrument].figures
    if not known:
        return []
    values = [{"value": name, "label": label} for name, label in known.items()]
    listed = choice(_shows(instrument), "Figure", values, next(iter(known)))
    return [html.Div(listed, className="inline")]


def _layout(instrument: str) -> html.Div:
    title = kinds()[instrument].title
    return html.Div(
        [
            *own_run.layout(instrument),
            *_choice(instrument),
            html.Div(_focus(instrument, title), id=_part(instrument, "stage"), hidden=True),
            html.Div(id=_part(instrument, "table"), hidden=True),
            dcc.Store(id=_part(instrument, "listed")),
            front.store(instrument),
        ]
    )


def _focus(instrument: str, title: str) -> html.Div:
    label: dict[str, Any] = {"aria-label": f"{title}. Arrow keys move the selection."}
    drawn = graph(_part(instrument, "figure"), HEIGHT)
    return html.Div(drawn, className="focus", tabIndex=0, role="application", **label)


def _register(instrument: str, app: dash.Dash, bench: Bench) -> None:
    selects(app, Input(_part(instrument, "figure"), "clickData"))
    rows_table.register(app, bench, instrument, _part(instrument, "rows"))
    own_run.register(app, instrument)

    @app.callback(
        own_run.note(instrument),
        Output(_part(instrument, "figure"), "figure"),
        Output(_part(instrument, "figure"), "style"),
        Output(_part(instrument, "stage"), "hidden"),
        Output(_part(instrument, "table"), "children"),
        Output(_part(instrument, "table"), "hidden"),
        Output(_part(instrument, "listed"), "data"),
        front.given(instrument),
        *(Input(one.id, "value") for one in _linked(instrument).values()),
        State(_part(instrument, "listed"), "data"),
        prevent_initial_call=True,
    )
    def draw(share: dict[str, Any] | None, *chosen: Any) -> tuple[Any, ...]:
        """Figure or rows, or why there are none."""
        if share is None:
            raise PreventUpdate
        *shows, listed = chosen
        shown = front.shown(share)
        run, at = shown.run, shown.selection
        result = bench.result(run, instrument)
        if result is None:
            return not_measured(instrument, run), *NOTHING
        wanted = [run.results[instrument], at.prompt]
        if shown.looks["view"] == "table":
            return own_run.made_with(bench, result), *_listed(result, at, wanted, listed)
        try:
            drawn = _figure_of(result, at, shown.theme, *shows)
        except WorkbenchError as error:
            return str(error), *_listed(result, at, wanted, listed)
        return own_run.made_with(bench, result), drawn, style(drawn), False, None, True, None


def _listed(
    result: Result, at: Selection, wanted: list[Any], listed: list[Any] | None
) -> tuple[Any, ...]:
    """The rows in the figure's place; a table that is there already stays, scrolled as it is."""
    identifier = _part(result.instrument, "rows")
    table = no_update if wanted == listed else rows_table.layout(identifier, result, at.prompt)
    return no_update, no_update, True, table, False, wanted


def _figure_of(result: Result, at: Selection, theme: str, shows: str | None = None) -> go.Figure:
    kind = kinds()[result.instrument]
    options = {"shows": shows} if shows else {}
    return kind.figure(
        result.data, theme=theme, prompt=at.prompt, selected=(at.layer, at.position), **options
    )


def figure(instrument: str, bench: Bench, shown: Shown) -> go.Figure | None:
    """The instrument's own figure, for a file; None where it has no result."""
    result = bench.result(shown.run, instrument)
    if result is None:
        return None
    shows = shown.looks.get(_look(instrument))
    return _figure_of(result, shown.selection, shown.theme, shows)


def frame(instrument: str, bench: Bench, shown: Shown) -> pd.DataFrame | None:
    """All rows of the instrument's result, for a file; None where it has no result."""
    result = bench.result(shown.run, instrument)
    return None if result is None else result.to_frame()

"""The Attention tab: every head at a glance, coloured by a score, and the pattern of one."""

from __future__ import annotations

import functools
from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from app.bench import Bench
from app.panels import front, generic, own_run, rows_table
from app.panels.groups import not_measured
from app.panels.selection import selects
from app.panels.sizes import style
from app.panels.tab import Linked, Tab
from app.parts import choice, graph
from app.state import Shown
from lenses.attention.figures import TITLES, figure, overview, pattern
from workbench import Result, WorkbenchError

__all__ = ["TAB"]

NAME = "attention"
SCORE, HEAD = "attention-score", "attention-head"
OVERVIEW, PATTERN = "attention-overview", "attention-pattern"
STAGE, BESIDE, TABLE = "attention-stage", "attention-beside", "attention-table"
LISTED = "attention-listed"  # data: whose rows the table shows
ROWS = {"type": "rows", "instrument": NAME}
BEST = "best"
MOST_HEADS = 512
HELP = (
    "Attention patterns, queries by keys. Arrow keys move the selection: up and down by one layer, "
    "left and right by one query."
)
NONE_KEPT = "The patterns were not kept: run with patterns true."


def layout() -> html.Div:
    """Form and button; score and head; the two figures; or rows in their place."""
    return html.Div(
        [
            *own_run.layout(NAME),
            html.Div(_controls(), className="inline"),
            html.Div(_figures(), id=STAGE, hidden=True),
            html.Div(id=TABLE, hidden=True),
            dcc.Store(id=LISTED),
            front.store(NAME),
        ]
    )


def _controls() -> dmc.Group:
    scores = [{"value": name, "label": name.replace("_", " ")} for name in TITLES]
    return dmc.Group(
        [
            choice(SCORE, "Score", scores, "previous"),
            choice(HEAD, "Head", _heads(0), BEST),
        ]
    )


def _heads(count: int) -> list[dict[str, str]]:
    known = [{"value": str(head), "label": f"head {head}"} for head in range(count)]
    return [{"value": BEST, "label": "furthest above uniform"}, *known]


def _figures() -> list[Any]:
    label: dict[str, Any] = {"aria-label": HELP}
    drawn = dmc.Group(
        [graph(OVERVIEW, 560), html.Div(graph(PATTERN, 560), id=BESIDE)], align="flex-start"
    )
    return [
        html.Div(drawn, className="focus", tabIndex=0, role="application", **label),
        dmc.Text(
            "Left: the mean over the prompt's places at which the score is defined; on the bar, what "
            "equal weight on all visible keys would score. A click takes the layer and the head; a "
            "click in the pattern takes its query.",
            size="xs",
            className="note",
        ),
    ]


def register(app: dash.Dash, bench: Bench) -> None:
    """Draws on every change of run, selection, score, head or theme."""
    selects(app, *(Input(name, "clickData") for name in (OVERVIEW, PATTERN)))
    rows_table.register(app, bench, NAME, ROWS)
    own_run.register(app, NAME)

    @app.callback(
        Output(HEAD, "value", allow_duplicate=True),
        Input(OVERVIEW, "clickData"),
        prevent_initial_call=True,
    )
    def take_head(click: dict[str, Any] | None) -> str:
        """The head of the cell that was clicked."""
        if click is None:
            raise PreventUpdate
        return str(click["points"][0]["x"])

    @app.callback(
        own_run.note(NAME),
        Output(STAGE, "hidden"),
        Output(TABLE, "hidden"),
        Output(OVERVIEW, "figure"),
        Output(OVERVIEW, "style"),
        Output(PATTERN, "figure"),
        Output(PATTERN, "style"),
        Output(BESIDE, "hidden"),
        Output(HEAD, "data"),
        Output(TABLE, "children"),
        Output(LISTED, "data"),
        front.given(NAME),
        Input(SCORE, "value"),
        Input(HEAD, "value"),
        State(LISTED, "data"),
        prevent_initial_call=True,
    )
    def draw(
        share: dict[str, Any] | None, score: str, head: str, listed: list[Any] | None
    ) -> tuple[Any, ...]:
        """Figures or rows, or why there are none."""
        if share is None:
            raise PreventUpdate
        shown = front.shown(share)
        result = bench.result(shown.run, NAME)
        if result is None:
            return not_measured(NAME, shown.run), True, True, *[no_update] * 8
        if shown.looks["view"] == "table":
            wanted = [shown.run.results[NAME], shown.selection.prompt]
            table = (
                no_update
                if wanted == listed
                else rows_table.layout(ROWS, result, shown.selection.prompt)
            )
            return own_run.made_with(bench, result), True, False, *[no_update] * 6, table, wanted
        try:
            said, *drawn = _drawn(bench, result, shown, score, head)
        except WorkbenchError as error:
            return str(error), True, True, *[no_update] * 8
        return said, False, True, *drawn, _heads(result.data.sizes["head"]), no_update, no_update


def _drawn(bench: Bench, result: Result, shown: Shown, score: str, head: str) -> tuple[Any, ...]:
    """What is said, the overview and its size, the pattern, its size, and whether it is hidden.

    Raises:
        ResultError: the result does not hold what is selected.
    """
    named = _named(shown, score, head)
    left = overview(result.data, **named)
    if "pattern" not in result.data:
        return (
            f"{own_run.made_with(bench, result)} {NONE_KEPT}",
            left,
            style(left),
            *[no_update] * 2,
            True,
        )
    right = pattern(result.data, **named)
    return own_run.made_with(bench, result), left, style(left), right, style(right), False


def _named(shown: Shown, score: str, head: str) -> dict[str, Any]:
    at = shown.selection
    chosen = None if head == BEST else int(head)
    place = {"prompt": at.prompt, "selected": (at.layer, at.position)}
    return {"theme": shown.theme, "score": score, "head": chosen} | place


def _figure(bench: Bench, shown: Shown) -> go.Figure | None:
    result = bench.result(shown.run, NAME)
    if result is None:
        return None
    return figure(result.data, **_named(shown, shown.looks["score"], shown.looks["head"]))


TAB = Tab(
    NAME,
    "Attention",
    layout,
    register,
    _figure,
    functools.partial(generic.frame, NAME),
    {
        "score": Linked(SCORE, list(TITLES)),
        "head": Linked(HEAD, [BEST, *map(str, range(MOST_HEADS))]),
    },
)

"""The Causal trace tab: the subject, the settings, three heat maps, and the averages of a prompt set."""

from __future__ import annotations

import functools
from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from app.bench import Bench
from app.panels import front, generic, own_run, rows_table, subject
from app.panels.groups import not_measured
from app.panels.selection import selects
from app.panels.sizes import HEIGHT, style
from app.panels.tab import Linked, Tab
from app.panels.tokens import tokens
from app.parts import choice, graph
from app.state import Shown
from probes.tracing.average_figure import figure_of_roles
from probes.tracing.headings import VALUES
from probes.tracing.prompt_figure import figure_of_prompt
from workbench import Result, WorkbenchError

__all__ = ["TAB"]

NAME = "causal_trace"
VALUE, OVER = "trace-value", "trace-over"
FIGURE, STAGE, TABLE = "trace-figure", "trace-stage", "trace-table"
LISTED = "trace-listed"  # data: whose rows the table shows
ROWS = {"type": "rows", "instrument": NAME}
EFFECT, PROMPT, ROLES = "effect", "prompt", "roles"
OVERS = [
    {"value": PROMPT, "label": "This prompt"},
    {"value": ROLES, "label": "All prompts, by token role"},
]
SETTINGS = "Settings and corrupted text"
HELP = (
    "Causal trace, layers by tokens, a heat map a component. Arrow keys move the selection by one layer "
    "or token."
)


def layout() -> html.Div:
    """Subject, form and button; what is coloured, over which prompts; the figure, or rows."""
    label: dict[str, Any] = {"aria-label": HELP}
    drawn = html.Div(
        graph(FIGURE, HEIGHT), className="focus", tabIndex=0, role="application", **label
    )
    head, form, run, note = own_run.parts(NAME)
    return html.Div(
        [
            head,
            subject.layout(),
            html.Details([html.Summary(SETTINGS), subject.corrupted(), form], className="fold"),
            dmc.Group([run, html.Div(_controls(), className="inline")], mt=8),
            note,
            html.Div([drawn, _note()], id=STAGE, hidden=True),
            html.Div(id=TABLE, hidden=True),
            dcc.Store(id=LISTED),
            front.store(NAME),
        ]
    )


def _controls() -> dmc.Group:
    values = [{"value": name, "label": label.capitalize()} for name, label in VALUES.items()]
    return dmc.Group([choice(VALUE, "Colour", values, EFFECT), choice(OVER, "Over", OVERS, PROMPT)])


def _note() -> dmc.Text:
    return dmc.Text(
        "Frame: the selected cell; a click selects another. Bold, with a bar: the subject. Intervals in "
        "the hover are 95% over draws of noise.",
        size="xs",
        className="note",
    )


def register(app: dash.Dash, bench: Bench) -> None:
    """Draws on every change of run, selection, colour or theme."""
    selects(app, Input(FIGURE, "clickData"))
    rows_table.register(app, bench, NAME, ROWS)
    own_run.register(app, NAME)
    subject.register(app)

    @app.callback(Output(subject.TEXTS, "data"), front.given(NAME), State(subject.TEXTS, "data"))
    def name_tokens(share: dict[str, Any] | None, before: dict[str, Any] | None) -> Any:
        """The tokens to choose a subject from."""
        if share is None:
            raise PreventUpdate
        shown = front.shown(share)
        texts = tokens(bench.results(shown.run).values(), shown.selection.prompt)
        row = subject.row(shown.run.asked, texts)
        return no_update if row == before else row

    @app.callback(
        own_run.note(NAME),
        Output(STAGE, "hidden"),
        Output(TABLE, "hidden"),
        Output(FIGURE, "figure"),
        Output(FIGURE, "style"),
        Output(TABLE, "children"),
        Output(LISTED, "data"),
        front.given(NAME),
        Input(VALUE, "value"),
        Input(OVER, "value"),
        State(LISTED, "data"),
        prevent_initial_call=True,
    )
    def draw(
        share: dict[str, Any] | None, value: str, over: str, listed: list[Any] | None
    ) -> tuple[Any, ...]:
        """Figure or rows, or why there are none."""
        if share is None:
            raise PreventUpdate
        shown = front.shown(share)
        result = bench.result(shown.run, NAME)
        if result is None:
            return not_measured(NAME, shown.run), True, True, *[no_update] * 4
        said = own_run.made_with(bench, result)
        if shown.looks["view"] == "table":
            wanted = [shown.run.results[NAME], shown.selection.prompt]
            same = wanted == listed
            table = no_update if same else rows_table.layout(ROWS, result, wanted[1])
            return said, True, False, no_update, no_update, table, wanted
        try:
            figure = _drawn(result, shown, value, over)
        except WorkbenchError as error:
            return str(error), True, True, *[no_update] * 4
        return said, False, True, figure, style(figure), no_update, no_update


def _drawn(result: Result, shown: Shown, value: str, over: str) -> go.Figure:
    """One prompt's heat maps, or the averages of all.

    Raises:
        ResultError: the result does not hold what is selected, or no prompt has a subject.
    """
    if over == ROLES:
        return figure_of_roles(result.data, theme=shown.theme, value=value)
    at = shown.selection
    return figure_of_prompt(
        result.data,
        theme=shown.theme,
        prompt=at.prompt,
        selected=(at.layer, at.position),
        value=value,
    )


def _figure(bench: Bench, shown: Shown) -> go.Figure | None:
    result = bench.result(shown.run, NAME)
    looks = shown.looks
    return None if result is None else _drawn(result, shown, looks["trace_value"], looks["over"])


TAB = Tab(
    NAME,
    "Causal trace",
    layout,
    register,
    _figure,
    functools.partial(generic.frame, NAME),
    {
        "trace_value": Linked(VALUE, list(VALUES)),
        "over": Linked(OVER, [PROMPT, ROLES]),
    },
)

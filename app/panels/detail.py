"""The detail panel: all that is known of the selected cell, in words, bars and curves."""

from __future__ import annotations

import math
from typing import Any

import dash
import dash_mantine_components as dmc
import xarray as xr
from dash import Input, Output, html, no_update
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.instruments import ALWAYS, kinds
from app.panels.tokens import tokens
from app.parts import graph
from app.state import Run, Selection
from lenses.logit.figures import candidates, curves
from workbench import Result, WorkbenchError
from workbench.figures import visible
from workbench.figures.generic import at_place
from workbench.figures.reading import words

__all__ = ["layout", "register"]

HEADING = "detail-heading"
SENTENCE = "detail-sentence"
FACTS = "detail-facts"
BARS = "detail-bars"
LENS = "detail-lens"
OTHERS = "detail-others"


def layout() -> html.Div:
    """The panel's parts, empty until something is selected."""
    live: dict[str, Any] = {"aria-live": "polite", "aria-atomic": "true"}
    spoken = html.Div([html.H2("Nothing selected", id=HEADING), html.P(id=SENTENCE)], **live)
    lens = [
        html.Div(id=FACTS),
        html.H3("Top tokens of this cell"),
        graph(BARS, 222),
        html.H3("This position along the layers"),
        graph(ids.CURVES, 360),
    ]
    # Not in the document before there is something to draw: an empty figure costs as much.
    drawn = dmc.Collapse(lens, id=LENS, opened=False, transitionDuration=0)
    return html.Div([spoken, drawn, html.Div(id=OTHERS)], className="detail")


def register(app: dash.Dash, bench: Bench) -> None:
    """Follows the selection."""

    @app.callback(
        Output(HEADING, "children"),
        Output(SENTENCE, "children"),
        Output(FACTS, "children"),
        Output(BARS, "figure"),
        Output(ids.CURVES, "figure"),
        Output(LENS, "opened"),
        Output(OTHERS, "children"),
        Input(ids.RUN, "data"),
        Input(ids.SELECTION, "data"),
        Input(ids.THEME, "forceColorScheme"),
        prevent_initial_call=True,
    )
    def follow(
        run: dict[str, Any] | None, selection: dict[str, Any] | None, theme: str
    ) -> tuple[Any, ...]:
        if run is None or selection is None:
            raise PreventUpdate
        at, results = Selection(**selection), bench.results(Run.of(run))
        others = [_facts(result, at) for name, result in results.items() if name != ALWAYS]
        return _heading(results, at), *_lens(results.get(ALWAYS), at, theme), others


def _heading(results: dict[str, Result], at: Selection) -> str:
    text = tokens(results.values(), at.prompt).get(at.position)
    name = "layer 0, the embedding" if at.layer == 0 else f"layer {at.layer}"
    place = f"{name} · position {at.position}"
    return place if text is None else f"{place} · input {visible(text)}"


def _lens(result: Result | None, at: Selection, theme: str) -> tuple[Any, ...]:
    """Sentence, facts, bars and curves of the logit lens, where it has read this place."""
    nothing = "", None, no_update, no_update, False
    if result is None:
        return nothing
    named: dict[str, Any] = {"theme": theme, "prompt": at.prompt, "site": at.site}
    try:
        cell = at_place(result.data, at.prompt, at.position, at.site).sel(layer=at.layer)
        return (
            _sentence(cell),
            _facts(result, at),
            candidates(result.data, at.layer, at.position, **named),
            curves(result.data, at.position, layer=at.layer, **named),
            True,
        )
    except WorkbenchError as error:
        return str(error), *nothing[1:]


def _sentence(cell: xr.Dataset) -> str:
    best = cell.isel(k=0)
    token, chance = visible(str(words(cell, best["top_id"]))), math.exp(best["top_logprob"])
    return f"Top token “{token}”, probability {chance:.3f}."


def _facts(result: Result, at: Selection) -> html.Section:
    """What one instrument says of the cell, or why it says nothing."""
    kind = kinds()[result.instrument]
    try:
        found = kind.facts(
            result.data, layer=at.layer, prompt=at.prompt, position=at.position, site=at.site
        )
    except WorkbenchError as error:
        return html.Section([html.H3(kind.title), html.P(str(error))])
    body = _list(found) if found else html.P("Nothing of this layer.")
    return html.Section([html.H3(kind.title), body])


def _list(facts: list[tuple[str, str]]) -> html.Dl:
    rows = [html.Div([html.Dt(name), html.Dd(value)]) for name, value in facts]
    return html.Dl(rows, className="facts")

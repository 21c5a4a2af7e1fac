"""The detail panel: all that is known of the selected cell, in words, bars and curves."""

from __future__ import annotations

import math
from typing import Any

import dash
import xarray as xr
from dash import Input, Output, html
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.parts import graph
from app.state import Run, Selection
from lenses.logit_figures import candidates, curves
from workbench.figures import visible
from workbench.figures.reading import reading, words

__all__ = ["layout", "register"]

HEADING = "detail-heading"
SENTENCE = "detail-sentence"
FACTS = "detail-facts"
BARS = "detail-bars"
BODY = "detail-body"

Facts = list[tuple[str, str]]


def layout() -> html.Div:
    """The panel's parts, empty until something is selected."""
    live: dict[str, Any] = {"aria-live": "polite", "aria-atomic": "true"}
    spoken = html.Div([html.H2("Nothing selected", id=HEADING), html.P(id=SENTENCE)], **live)
    body = [
        html.Dl(id=FACTS, className="facts"),
        html.H3("Top tokens of this cell"),
        graph(BARS, 222),
        html.H3("This position along the layers"),
        graph(ids.CURVES, 290),
    ]
    return html.Div([spoken, html.Div(body, id=BODY, hidden=True)], className="detail")


def register(app: dash.Dash, bench: Bench) -> None:
    """Follows the selection."""

    @app.callback(
        Output(HEADING, "children"),
        Output(SENTENCE, "children"),
        Output(FACTS, "children"),
        Output(BARS, "figure"),
        Output(ids.CURVES, "figure"),
        Output(BODY, "hidden"),
        Input(ids.RUN, "data"),
        Input(ids.SELECTION, "data"),
        Input(ids.THEME, "forceColorScheme"),
    )
    def follow(
        run: dict[str, Any] | None, selection: dict[str, Any] | None, theme: str
    ) -> tuple[Any, ...]:
        if run is None or selection is None:
            raise PreventUpdate
        at, data = Selection(**selection), bench.measure(Run.of(run).asked).data
        cell = reading(data, at.prompt, at.site).sel(layer=at.layer, position=at.position)
        named: dict[str, Any] = {"theme": theme, "prompt": at.prompt, "site": at.site}
        return (
            _heading(cell),
            _sentence(cell),
            _list(_facts(cell)),
            candidates(data, at.layer, at.position, **named),
            curves(data, at.position, layer=at.layer, **named),
            False,
        )


def _heading(cell: xr.Dataset) -> str:
    token = visible(str(cell["token"].item()))
    layer, position = cell["layer"].item(), cell["position"].item()
    name = "layer 0, the embedding" if layer == 0 else f"layer {layer}"
    return f"{name} · position {position} · input {token}"


def _sentence(cell: xr.Dataset) -> str:
    best = cell.isel(k=0)
    token, chance = visible(str(words(cell, best["top_id"]))), math.exp(best["top_logprob"])
    return f"Top token “{token}”, probability {chance:.3f}."


def _facts(cell: xr.Dataset) -> Facts:
    facts = _followed(cell, "target") + _followed(cell, "foil")
    if cell["target_id"] >= 0 and cell["target_peak_layer"] >= 0:
        peak, chance = cell["target_peak_layer"].item(), math.exp(cell["target_peak_logprob"])
        facts.append(("target at its best", f"layer {peak}, p {chance:.3g}"))
    if cell["settling_layer"] >= 0:
        facts.append(("top token settles at", f"layer {cell['settling_layer'].item()}"))
    if not math.isnan(cell["entropy"]):
        facts.append(("entropy", f"{cell['entropy'].item():.3f} nat"))
        divergences = f"{cell['kl'].item():.3f}, {cell['js'].item():.3f} nat"
        facts.append(("KL(final || layer), JS", divergences))
    facts.append(("norm", f"{cell['norm'].item():.2f}"))
    return facts


def _followed(cell: xr.Dataset, name: str) -> Facts:
    if cell[f"{name}_id"] < 0:
        return []
    token = visible(str(words(cell, cell[f"{name}_id"])))
    chance, rank = math.exp(cell[f"{name}_logprob"]), int(cell[f"{name}_rank"])
    return [(f"{name} {token}", f"rank {rank:,}, p {chance:.3g}")]


def _list(facts: Facts) -> list[Any]:
    return [html.Div([html.Dt(name), html.Dd(value)]) for name, value in facts]

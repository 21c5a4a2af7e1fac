"""Sparse probes: all features, one feature's F1, its units' histograms, and one neuron's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash
import dash_mantine_components as dmc
import numpy as np
import plotly.graph_objects as go
import xarray as xr
from dash import ALL, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.measuring import seen
from app.panels.sizes import style
from app.parts import alert
from app.state import Asked, Pending
from app.summaries.generic import listings, remarks
from app.summaries.view import LOOKS, SetView, drawn, place
from probes.sparse.report import section
from probes.sparse.rows import of_own_units
from workbench import Result, WorkbenchError
from workbench.figures import shorten
from workbench.instrument import find
from workbench.report.tables import frame

__all__ = ["VIEW"]

NAME, NEURONS = "sparse_probe", "neurons"
ALL_FEATURES, OF_FEATURE, OF_UNITS, OF_NEURON = (
    "probe-all",
    "probe-feature",
    "probe-units",
    "probe-neuron",
)
KEY = "probe-key"  # data: the key of the result
FEATURE, LAYER, NEURON = "probe-of-feature", "probe-of-layer", "probe-of-neuron"
LOOK = "probe-look"
PAGE = {"type": "neuron-page", "of": NAME}
LETTERS = 60
ASIDE = (
    "A probe says that a feature can be read off some units, not that the model uses them: for that, "
    "ablate them or interchange their values."
)


def layout(key: str, result: Result, theme: str) -> list[Any]:
    """The figures from the whole to one neuron, then the table of best layers."""
    features = [str(name) for name in result.data["feature"].values.tolist()]
    options = [{"value": name, "label": shorten(name, LETTERS)} for name in features]
    chosen = dmc.Select(
        id=FEATURE,
        label="Feature",
        data=options,
        value=_best_feature(of_own_units(result.data)),
        searchable=True,
        allowDeselect=False,
        size="xs",
        w=280,
        persistence=key,
        persistence_type="memory",
    )
    layers = [str(layer) for layer in of_own_units(result.data)["layer"].values.tolist()]
    layer = dmc.Select(id=LAYER, label="Layer", data=layers, allowDeselect=False, size="xs", w=100)
    whole = find(NAME).figure(result.data, theme=theme)
    said = section(frame(find(NAME).rows(result.data)).lazy(), result.data)
    return [
        *remarks([ASIDE]),
        drawn(ALL_FEATURES, "F1 of every feature at every layer", whole),
        html.H3("One feature"),
        dmc.Group([chosen, layer], align="flex-end"),
        place(OF_FEATURE, "F1 against k, and along the layers"),
        place(OF_UNITS, "Histograms of the units that probes take first"),
        *_neuron(result),
        *listings(said.listings),
        dcc.Store(id=KEY, data=key),
    ]


def _neuron(result: Result) -> list[Any]:
    """What leads to one neuron's page, where units are neurons."""
    hidden = result.provenance["settings"]["site"] != "mlp_act"
    choice = dmc.Select(id=NEURON, label="Neuron", data=[], allowDeselect=False, size="xs", w=120)
    button = dmc.Button("Look into this neuron", id=LOOK, n_clicks=0, size="xs", variant="default")
    note = html.P(
        "Its value vector in the vocabulary, all of its activations over the set, and the contexts of the "
        "greatest.",
        className="said",
    )
    row = html.Div([dmc.Group([choice, button], align="flex-end"), note], hidden=hidden)
    return [row, html.Div(id=PAGE)]


def _best_feature(data: xr.Dataset) -> str:
    """That of the greatest validation F1 with the fewest units, above calling everything positive."""
    lead = data["validation_f1"].isel(k=0).max("layer") - data["all_positive"]
    return str(data["feature"].values[int(np.nanargmax(lead.values))])


def _best_layer(data: xr.Dataset, feature: str) -> str:
    one = data["validation_f1"].sel(feature=feature).isel(k=0)
    return str(data["layer"].values[int(np.nanargmax(one.values))])


def figure(result: Result, name: str, theme: str, looks: Mapping[str, Any]) -> go.Figure:
    """The figure called so, of the feature and layer that are chosen."""
    kind, feature = find(NAME), looks.get("feature")
    options: dict[str, dict[str, Any]] = {
        OF_FEATURE: {"feature": feature},
        OF_UNITS: {"feature": feature, "layer": looks.get("layer")},
    }
    return kind.figure(result.data, theme=theme, **options.get(name, {}))


def register(app: dash.Dash, bench: Bench) -> None:
    """Figures follow the feature and the layer; a neuron is measured as a job of its own."""
    _register_figures(app, bench)
    _register_neuron(app, bench)


def _register_figures(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(OF_FEATURE, "figure"),
        Output(OF_FEATURE, "style"),
        Output(OF_UNITS, "figure"),
        Output(OF_UNITS, "style"),
        Output(LAYER, "value"),
        Output(NEURON, "data"),
        Output(NEURON, "value"),
        Output(LOOKS, "data"),
        Input(FEATURE, "value"),
        Input(LAYER, "value"),
        State(KEY, "data"),
        State(ids.THEME, "forceColorScheme"),
    )
    def draw(feature: str | None, layer: str | None, key: str, theme: str) -> tuple[Any, ...]:
        """Another feature begins at its own best layer."""
        if feature is None:
            raise PreventUpdate
        result = bench.desk.result(key)
        own = of_own_units(result.data)
        if layer is None or dash.ctx.triggered_id != LAYER:
            layer = _best_layer(own, feature)
        looks = {"feature": feature, "layer": int(layer)}
        one, units = (figure(result, name, theme, looks) for name in (OF_FEATURE, OF_UNITS))
        there = own["neuron"].sel(feature=feature, layer=int(layer)).values
        neurons = [str(unit) for unit in there.tolist() if unit >= 0]
        return one, style(one), units, style(units), layer, neurons, neurons[0], looks


def _register_neuron(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(ids.JOB, "data", allow_duplicate=True),
        Output(ids.ALERT, "children", allow_duplicate=True),
        Input(LOOK, "n_clicks"),
        State(NEURON, "value"),
        State(LAYER, "value"),
        State(ids.RUN, "data"),
        State(ids.JOB, "data"),
        prevent_initial_call=True,
    )
    def look(clicks: int, neuron: str, layer: str, shown: Any, job: Any) -> tuple[Any, Any]:
        """Queues the neuron view over the same prompts; one job at a time."""
        if not clicks or (job is not None and Pending.of(job).going):
            raise PreventUpdate
        settings = {NEURONS: {"layer": layer, "neurons": f"{neuron},"}}
        title = f"neuron {neuron} of layer {layer}, {shown['title']}"
        try:
            number = bench.queue(shown["model"], shown["prompts"], title, [NEURONS], settings)
        except WorkbenchError as error:
            return dash.no_update, alert(str(error))
        asked = Asked(shown["model"], "", prompts=shown["prompts"])
        pending = Pending(number, asked, settings, {}, adds=True)
        return seen(pending, bench.desk.job(number)).stored(), None

    @app.callback(
        Output(PAGE | {"of": ALL}, "children"),
        Input(ids.JOB, "data"),
        State(ids.THEME, "forceColorScheme"),
        prevent_initial_call=True,
    )
    def show(job: dict[str, Any] | None, theme: str) -> list[Any]:
        """The neuron's figure, once it is measured."""
        pending = None if job is None else Pending.of(job)
        if pending is None or not pending.adds or pending.going:
            raise PreventUpdate
        found = bench.desk.job(pending.job)
        if NEURONS not in found.results:
            return [alert(str(found.error or f"job {found.id} was {found.state}"))]
        result = bench.desk.result(found.results[NEURONS])
        made = result.provenance["settings"]
        drawn_of = find(NEURONS).figure(result.data, theme=theme)
        head = f"Neuron {made['neurons'][0]} of layer {made['layer']}, over {found.n_prompts:,} prompts"
        page = html.Div(drawn(OF_NEURON, head, drawn_of).children[1])
        link = html.A("Export, or send this page", href=f"/sets/?job={found.id}")
        return [[html.H3(head), page, html.P(link)]]


VIEW = SetView(layout, figure, register)

"""The Logit lens tab: the whole reading as a strip, a window of it as a grid of tokens."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Input, Output, Patch, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.panels import table
from app.parts import choice, graph
from app.state import Run, Selection
from lenses.logit_figures import COLOURS, figure, strip
from workbench.figures import box, page, rows, themed

__all__ = ["BUSY", "layout", "register"]

STAGE = "lens-stage"
EMPTY = "lens-empty"
EMPTY_TEXT = "lens-empty-text"
NOTHING = "Nothing measured yet. Type a prompt above and press Run."
BUSY = [
    (Output(STAGE, "className"), "busy", ""),
    (Output(EMPTY_TEXT, "children"), "Measuring ...", NOTHING),
]

SITE_NAMES = {
    "resid_post": "State after the block",
    "attn_out": "Attention's output",
    "mlp_out": "MLP's output",
}
COLOUR_NAMES = {
    "probability": "Probability of the top token",
    "target": "Log-probability of the target",
    "rank": "Rank of the target",
    "entropy": "Entropy",
    "kl": "KL from the final layer",
    "js": "JS from the final layer",
    "norm": "Norm of the vector",
}
OF_TARGET = ("target", "rank")
OF_STATES = ("entropy", "kl", "js")
HELP = (
    "Logit lens, layers by positions. Arrow keys move the selection by one layer or position, "
    "Home and End go to the first and the last position."
)


def layout() -> html.Div:
    """Controls, strip, grid, table, and what stands there before anything is measured."""
    return html.Div([_empty(), html.Div(_stage(), id=STAGE, hidden=True)])


def register(app: dash.Dash, bench: Bench) -> None:
    """Draws on every change of run, selection, colour or theme; moves the box where it can."""
    _register_choices(app)

    @app.callback(
        Output(ids.GRID, "figure"),
        Output(ids.GRID, "style"),
        Output(ids.STRIP, "figure"),
        Output(ids.SHOWN, "data"),
        Output(STAGE, "hidden"),
        Output(EMPTY, "hidden"),
        Input(ids.RUN, "data"),
        Input(ids.SELECTION, "data"),
        Input(ids.COLOUR, "value"),
        Input(ids.THEME, "forceColorScheme"),
        State(ids.SHOWN, "data"),
    )
    def draw(
        run: dict[str, Any] | None,
        selection: dict[str, Any] | None,
        colour: str,
        theme: str,
        shown: dict[str, Any] | None,
    ) -> tuple[Any, ...]:
        if run is None or selection is None:
            raise PreventUpdate
        at, ran = Selection(**selection), Run.of(run)
        wanted = _wanted(ran, at, colour, theme)
        grid, style = _grid(bench, ran, at, wanted, shown)
        return grid, style, _strip(bench, ran, at, wanted, shown), wanted, False, True


def _register_choices(app: dash.Dash) -> None:
    @app.callback(
        Output(ids.COLOUR, "data"),
        Output(ids.COLOUR, "value", allow_duplicate=True),
        Input(ids.RUN, "data"),
        Input(ids.SITE, "value"),
        State(ids.COLOUR, "value"),
        prevent_initial_call="initial_duplicate",
    )
    def choices(run: dict[str, Any] | None, site: str, colour: str) -> tuple[Any, Any]:
        """Offers only the colours that this run has at this site."""
        missing: tuple[str, ...] = () if site == "resid_post" else OF_STATES
        if run is not None and not Run.of(run).asked.target:
            missing += OF_TARGET
        kept = no_update if colour in COLOURS and colour not in missing else "probability"
        return _options(COLOUR_NAMES, missing), kept


def _wanted(run: Run, at: Selection, colour: str, theme: str) -> dict[str, Any]:
    """What the figures are to show; equal descriptions mean equal figures but for the box."""
    columns = page(run.positions, at.position)
    return {
        "whole": [run.link, at.site, colour, theme],
        "layers": rows(range(run.layers + 1), at.layer),
        "positions": [columns.start, columns.stop - 1],
    }


def _grid(
    bench: Bench, run: Run, at: Selection, wanted: dict[str, Any], shown: dict[str, Any] | None
) -> tuple[go.Figure | Patch, Any]:
    column, row = at.position - wanted["positions"][0], wanted["layers"].index(at.layer)
    _, site, colour, theme = wanted["whole"]
    if wanted == shown:
        return _boxed(box([column], [row], themed(theme))), no_update
    drawn = figure(
        bench.measure(run.asked).data,
        theme=theme,
        colour=colour,
        prompt=at.prompt,
        site=site,
        layers=wanted["layers"],
        positions=slice(*wanted["positions"]),
        selected=(at.layer, at.position),
    )
    return drawn, {"height": drawn.layout.height, "minWidth": round(drawn.layout.width * 0.93)}


def _strip(
    bench: Bench, run: Run, at: Selection, wanted: dict[str, Any], shown: dict[str, Any] | None
) -> go.Figure | Patch:
    _, site, colour, theme = wanted["whole"]
    look = themed(theme)
    boxes = [
        box(wanted["positions"], [0, run.layers], look, width=1.5),
        box([at.position], [at.layer], look),
    ]
    if shown is not None and wanted["whole"] == shown["whole"]:
        return _boxed(*boxes)
    data = bench.measure(run.asked).data
    drawn = strip(data, theme=theme, colour=colour, prompt=at.prompt, site=site)
    return drawn.update_layout(shapes=boxes)


def _boxed(*boxes: dict[str, Any]) -> Patch:
    moved = Patch()
    moved["layout"]["shapes"] = list(boxes)
    return moved


def _options(names: dict[str, str], missing: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    return [
        {"value": value, "label": label, "disabled": value in missing}
        for value, label in names.items()
    ]


def _empty() -> html.Div:
    return html.Div(dmc.Text(NOTHING, id=EMPTY_TEXT), id=EMPTY, className="empty")


def _stage() -> list[Any]:
    label: dict[str, Any] = {"aria-label": HELP}
    return [
        _controls(),
        graph(ids.STRIP, height=116),
        html.Div(
            graph(ids.GRID, height=360),
            id=table.FOCUS,
            className="focus",
            tabIndex=0,
            role="application",
            **label,
        ),
        dmc.Text(
            "In each cell the top token, were the model to stop at that layer. Bold: the target. "
            "Box: the selection; click or use the arrow keys. emb: the embedding; layer l follows "
            "block l. Paler outputs are smaller.",
            size="xs",
            className="note",
        ),
        table.layout(),
        dcc.Store(id=ids.SHOWN),
    ]


def _controls() -> dmc.Group:
    views = [{"value": "grid", "label": "Grid"}, {"value": "table", "label": "Table"}]
    return dmc.Group(
        [
            choice(ids.COLOUR, "Colour", _options(COLOUR_NAMES), "probability"),
            choice(ids.SITE, "Component", _options(SITE_NAMES), "resid_post"),
            dmc.SegmentedControl(id=ids.VIEW, data=views, value="grid", size="xs"),
        ],
        className="inline",
        mb=4,
    )

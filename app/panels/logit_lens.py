"""The Logit lens tab: the whole reading as a strip, a window of it as a grid of tokens."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
import xarray as xr
from dash import Input, Output, Patch, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.panels import forms, front, generic, lens_table
from app.panels.groups import not_measured
from app.panels.said import said
from app.panels.selection import selects
from app.panels.tab import Linked, Tab
from app.parts import choice, graph
from app.state import Run, Selection, Shown
from lenses.logit.figures import COLOURS, figure, strip
from workbench import WorkbenchError
from workbench.figures import box, page, rows, themed
from workbench.figures.reading import chosen, reading

__all__ = ["TAB"]

NAME = "logit_lens"
COLOUR_NAMES = {
    "probability": "Probability of the top token",
    "target": "Log-probability of the target",
    "rank": "Rank of the target",
    "entropy": "Entropy",
    "kl": "KL from the final layer",
    "js": "JS from the final layer",
    "norm": "Norm of the vector",
}
FIRST = "probability"
NOTE = "lens-note"
FIGURES = "lens-figures"
HELP = (
    "Logit lens, layers by positions. Arrow keys move the selection by one layer or position, "
    "Home and End go to the first and the last position."
)


def layout() -> html.Div:
    """Controls, strip, grid and table, or a line that says why there are none."""
    return html.Div(
        [
            dmc.Group(
                [
                    html.Div(choice(ids.COLOUR, "Colour", _options(), FIRST), className="inline"),
                    forms.field(NAME, "lens"),
                ],
                align="flex-end",
            ),
            said(NOTE),
            html.Div(_figures(), id=FIGURES, hidden=True),
            dcc.Store(id=ids.SHOWN),
            front.store(NAME),
        ]
    )


def register(app: dash.Dash, bench: Bench) -> None:
    """Draws on every change of run, selection, colour or theme; moves the box where it can."""
    _register_colours(app, bench)
    selects(app, *(Input(name, "clickData") for name in (ids.GRID, ids.STRIP)))
    lens_table.register(app, bench)

    @app.callback(
        Output(ids.GRID, "figure"),
        Output(ids.GRID, "style"),
        Output(ids.STRIP, "figure"),
        Output(ids.SHOWN, "data"),
        Output(FIGURES, "hidden"),
        Output(NOTE, "children"),
        front.given(NAME),
        Input(ids.COLOUR, "value"),
        State(ids.SHOWN, "data"),
        prevent_initial_call=True,
    )
    def draw(
        share: dict[str, Any] | None, colour: str, before: dict[str, Any] | None
    ) -> tuple[Any, ...]:
        """Figures, or why there are none."""
        if share is None:
            raise PreventUpdate
        shown = front.shown(share)
        result = bench.result(shown.run, NAME)
        if result is None:
            return *[no_update] * 4, True, not_measured(NAME, shown.run)
        try:
            return *_drawn(result.data, shown, colour, before), False, ""
        except WorkbenchError as error:
            return *[no_update] * 4, True, str(error)


def _register_colours(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(ids.COLOUR, "data"),
        Output(ids.COLOUR, "value", allow_duplicate=True),
        Input(ids.RUN, "data"),
        Input(ids.SITE, "value"),
        State(ids.SELECTION, "data"),
        State(ids.COLOUR, "value"),
        prevent_initial_call=True,
    )
    def colours(
        run: dict[str, Any] | None, site: str, selection: dict[str, Any] | None, colour: str
    ) -> tuple[Any, Any]:
        """Offers only the colours that this run has at this site."""
        result = None if run is None else bench.result(Run.of(run), NAME)
        if result is None or selection is None:
            raise PreventUpdate
        missing = _missing(result.data, selection["prompt"], site)
        kept = no_update if colour in COLOURS and colour not in missing else FIRST
        return _options(missing), kept


def _missing(data: xr.Dataset, prompt: str | int, site: str) -> list[str]:
    """Colours of which a prompt has no number at a site."""
    if site not in data["site"].values:
        return []
    one = reading(data, prompt, site)
    return [name for name, it in COLOURS.items() if not it.values(one).notnull().any()]


def _drawn(
    data: xr.Dataset, shown: Shown, colour: str, before: dict[str, Any] | None
) -> tuple[Any, ...]:
    """Grid, its size, strip, and what they show; equal descriptions mean equal figures.

    Raises:
        ResultError: the result does not hold what is selected.
    """
    run, at = shown.run, shown.selection
    known = reading(data, at.prompt, at.site)["position"].values
    columns = page(len(known), known.tolist().index(chosen("position", at.position, known)))
    wanted = {
        "whole": [run.results[NAME], at.prompt, at.site, colour, shown.theme],
        "layers": rows(range(run.layers + 1), at.layer),
        "positions": known[columns.start : columns.stop].tolist(),
    }
    return *_grid(data, at, wanted, before), _strip(data, run, at, wanted, before), wanted


def _grid(
    data: xr.Dataset, at: Selection, wanted: dict[str, Any], before: dict[str, Any] | None
) -> tuple[go.Figure | Patch, Any]:
    column, row = wanted["positions"].index(at.position), wanted["layers"].index(at.layer)
    *_, prompt, site, colour, theme = wanted["whole"]
    if wanted == before:
        return _boxed(box([column], [row], themed(theme))), no_update
    drawn = figure(
        data,
        theme=theme,
        colour=colour,
        prompt=prompt,
        site=site,
        layers=wanted["layers"],
        positions=wanted["positions"],
        selected=(at.layer, at.position),
    )
    return drawn, {"height": drawn.layout.height, "minWidth": round(drawn.layout.width * 0.93)}


def _strip(
    data: xr.Dataset,
    run: Run,
    at: Selection,
    wanted: dict[str, Any],
    before: dict[str, Any] | None,
) -> go.Figure | Patch:
    *_, prompt, site, colour, theme = wanted["whole"]
    look = themed(theme)
    boxes = [
        box(wanted["positions"], [0, run.layers], look, width=1.5),
        box([at.position], [at.layer], look),
    ]
    if before is not None and wanted["whole"] == before["whole"]:
        return _boxed(*boxes)
    drawn = strip(data, theme=theme, colour=colour, prompt=prompt, site=site)
    return drawn.update_layout(shapes=boxes)


def _boxed(*boxes: dict[str, Any]) -> Patch:
    moved = Patch()
    moved["layout"]["shapes"] = list(boxes)
    return moved


def _options(missing: Collection[str] = ()) -> list[dict[str, Any]]:
    return [
        {"value": value, "label": label, "disabled": value in missing}
        for value, label in COLOUR_NAMES.items()
    ]


def _figure(bench: Bench, shown: Shown) -> go.Figure | None:
    result, at = bench.result(shown.run, NAME), shown.selection
    if result is None:
        return None
    return figure(
        result.data,
        theme=shown.theme,
        colour=shown.looks["colour"],
        prompt=at.prompt,
        site=at.site,
        selected=(at.layer, at.position),
    )


def _figures() -> list[Any]:
    label: dict[str, Any] = {"aria-label": HELP}
    return [
        graph(ids.STRIP, height=116),
        html.Div(
            graph(ids.GRID, height=360),
            id=lens_table.FOCUS,
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
        lens_table.layout(),
    ]


TAB = Tab(
    NAME,
    "Logit lens",
    layout,
    register,
    _figure,
    functools.partial(generic.frame, NAME),
    {"colour": Linked(ids.COLOUR, COLOURS)},
)

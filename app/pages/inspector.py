"""The Inspector: one prompt on one model, one tab a method, one selection for all of them."""

from __future__ import annotations

from typing import Any

import dash
import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html, no_update

from app import exports, ids
from app.bench import SITES, Bench
from app.panels import detail, logit_lens, table
from app.parts import alert, in_browser
from app.state import Asked, Link, Run, Selection
from workbench import WorkbenchError

__all__ = ["layout", "register"]

FIELDS = (ids.MODEL, ids.PROMPT, ids.TARGET, ids.FOIL)
BUSY = [
    (Output(ids.RUN_BUTTON, "loading"), True, False),
    (Output(ids.STATUS, "children"), "Measuring", ""),
    *logit_lens.BUSY,
]


def layout() -> tuple[Any, Any]:
    """The page's main part and its detail panel."""
    tabs = dmc.Tabs(
        [
            dmc.TabsList([dmc.TabsTab("Logit lens", value="logit_lens")]),
            dmc.TabsPanel(logit_lens.layout(), value="logit_lens", pt=8),
        ],
        value="logit_lens",
    )
    return html.Div([tabs, dcc.Store(id=ids.KEYS)]), detail.layout()


def register(app: dash.Dash, bench: Bench, start: Asked) -> None:
    """Wires the page and its panels."""
    _register_opening(app, bench, start)
    _register_run(app, bench)
    _register_selection(app)
    logit_lens.register(app, bench)
    table.register(app, bench)
    detail.register(app, bench)
    exports.register(app, bench)


def _register_opening(app: dash.Dash, bench: Bench, start: Asked) -> None:
    @app.callback(
        Output(ids.RUN, "data"),
        Output(ids.SELECTION, "data"),
        Output(ids.ALERT, "children"),
        *(Output(name, "value") for name in (*FIELDS, ids.COLOUR, ids.SITE, ids.VIEW)),
        Input("url", "search"),
        running=BUSY,
    )
    def open_page(search: str | None) -> tuple[Any, ...]:
        """Measures what the address says, or the start; wrong addresses change nothing."""
        try:
            link = Link.read(search or "", bench.text)
            asked = link.asked_of(start)
            run, selection = _measured(bench, asked, link)
        except WorkbenchError as error:
            return no_update, no_update, alert(str(error)), *[no_update] * 7
        fields = (asked.model, asked.text, asked.target, asked.foil)
        looks = (link.colour or no_update, selection["site"], link.view or no_update)
        return run, selection, None, *fields, *looks


def _register_run(app: dash.Dash, bench: Bench) -> None:
    @app.callback(
        Output(ids.RUN, "data", allow_duplicate=True),
        Output(ids.SELECTION, "data", allow_duplicate=True),
        Output(ids.ALERT, "children", allow_duplicate=True),
        Input(ids.RUN_BUTTON, "n_clicks"),
        *(Input(name, "n_submit") for name in (ids.TARGET, ids.FOIL)),
        *(State(name, "value") for name in FIELDS),
        State(ids.SELECTION, "data"),
        State(ids.RUN, "data"),
        running=BUSY,
        prevent_initial_call=True,
    )
    def run(*values: Any) -> tuple[Any, Any, Any]:
        """Measures what stands in the top bar; an error leaves the page as it is."""
        *fields, selection, before = values[-len(FIELDS) - 2 :]
        asked = Asked(*(value or "" for value in fields))
        try:
            return *_measured(bench, asked, _kept(asked, selection, before)), None
        except WorkbenchError as error:
            return no_update, no_update, alert(str(error))


def _register_selection(app: dash.Dash) -> None:
    in_browser(
        app,
        "select",
        Output(ids.SELECTION, "data", allow_duplicate=True),
        Input(ids.GRID, "clickData"),
        Input(ids.STRIP, "clickData"),
        Input(ids.CURVES, "clickData"),
        Input(ids.KEYS, "data"),
        Input(ids.SITE, "value"),
        State(ids.SELECTION, "data"),
        State(ids.RUN, "data"),
        prevent_initial_call=True,
    )


def _kept(asked: Asked, selection: dict[str, Any] | None, before: dict[str, Any] | None) -> Link:
    """What stays selected: the component, and on the same prompt the cell as well."""
    if selection is None or before is None:
        return Link()
    at, earlier = Selection(**selection), Run.of(before).asked
    if (earlier.model, earlier.text) != (asked.model, asked.text):
        return Link(site=at.site)
    return Link(layer=at.layer, position=at.position, site=at.site)


def _within(low: int, asked: int | None, high: int) -> int:
    return high if asked is None else min(max(low, asked), high)


def _measured(bench: Bench, asked: Asked, link: Link) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run and the selection of a link; by default the last position at the last layer."""
    data = bench.measure(asked).data
    layers, positions = data.sizes["layer"] - 1, data.sizes["place"]
    run = Run(asked, layers, positions, Link.query(asked))
    site = link.site if link.site in SITES else SITES[0]
    selection = Selection(
        prompt=data["prompt"].values[0].item(),
        layer=_within(0 if site == "resid_post" else 1, link.layer, layers),
        position=_within(0, link.position, positions - 1),
        site=site,
    )
    return run.stored(), selection.stored()

"""The Layers tab: what every instrument says of one place, side by side, one row a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dash
import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from app import ids
from app.bench import Bench
from app.panels import chips, controls, front, tokens
from app.panels.groups import Group, groups, visible_panels
from app.panels.layers_table import columns, records, table
from app.panels.selection import selects
from app.panels.sizes import style
from app.panels.tab import Tab
from app.parts import graph, in_browser
from app.state import Shown
from workbench.figures import layer_panels, themed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TAB"]

NAME = "layers"
SHOWN = "layers-shown"  # data: what the tab shows now, but for the selected layer
FIGURE = "layers-focus"
TABLE = "layers-table"
HELP = (
    "Panels by layer. Up and down move the selection by one layer, left and right by one token, "
    "Home and End go to the first and the last token."
)
NOTHING = "No panel is switched on: choose some above."


def _layout() -> html.Div:
    label: dict[str, Any] = {"aria-label": HELP}
    figure = html.Div(
        graph(ids.LAYERS, 560),
        id=FIGURE,
        className="focus",
        tabIndex=0,
        role="application",
        hidden=True,
        **label,
    )
    table = html.Div(id=TABLE, className="focus", tabIndex=0, role="region", hidden=True, **label)
    return html.Div(
        [
            front.store(NAME),
            tokens.layout(),
            chips.layout(),
            figure,
            table,
            _note(),
            dcc.Store(id=SHOWN),
        ]
    )


def _note() -> dmc.Text:
    return dmc.Text(
        "Every row is one layer, of the token that is pressed above. Frame: the selected layer; "
        "click anywhere or use the arrow keys. emb: the embedding; layer l follows block l.",
        size="xs",
        className="note",
    )


def _register(app: dash.Dash, bench: Bench) -> None:
    chips.register(app)
    tokens.register(app)
    selects(app, Input(ids.LAYERS, "clickData"))
    in_browser(app, "reveal", Input(SHOWN, "data"), Input(ids.SELECTION, "data"))

    @app.callback(
        Output(ids.LAYERS, "figure"),
        Output(ids.LAYERS, "style"),
        Output(FIGURE, "hidden"),
        Output(TABLE, "children"),
        Output(TABLE, "hidden"),
        Output(ids.TOKENS, "data"),
        Output(ids.CHIPS, "children"),
        Output(SHOWN, "data"),
        front.given(NAME),
        State(SHOWN, "data"),
        prevent_initial_call=True,
    )
    def draw(share: dict[str, Any] | None, before: dict[str, Any] | None) -> tuple[Any, ...]:
        """Draws on every change; of a figure, the browser moves the frame to another layer."""
        if share is None:
            raise PreventUpdate
        shown = front.shown(share)
        found, wanted = _found(bench, shown), _wanted(shown)
        tabled = shown.looks["view"] == "table"
        body = _tabled(found, shown) if tabled else _drawn(found, shown)
        return *body, *_around(bench, found, shown, wanted, before), wanted


def _wanted(shown: Shown) -> dict[str, Any]:
    """What the tab is to show, but for the layer."""
    at, run = shown.selection, shown.run
    return {
        "results": [dict(run.results), dict(run.refused), at.prompt],
        "place": [at.position, at.site],
        "look": [shown.theme, list(shown.off), shown.looks["view"]],
    }


def _found(bench: Bench, shown: Shown) -> list[Group]:
    return groups(bench, shown.run, shown.selection, shown.off)


def _tabled(found: Sequence[Group], shown: Shown) -> tuple[Any, ...]:
    """Table in place of the figure."""
    at = shown.selection
    said = columns(visible_panels(found, shown.off), at.position)
    return no_update, no_update, True, table(said, at.layer) if said else NOTHING, False


def _drawn(found: Sequence[Group], shown: Shown) -> tuple[Any, ...]:
    """Figure in place of the table."""
    at, look = shown.selection, themed(shown.theme)
    panels = visible_panels(found, shown.off)
    if not panels:
        return no_update, no_update, True, NOTHING, False
    figure = layer_panels(panels, look, layer=at.layer, position=at.position)
    return figure, style(figure), False, None, True


def _around(
    bench: Bench,
    found: Sequence[Group],
    shown: Shown,
    wanted: dict[str, Any],
    before: dict[str, Any] | None,
) -> tuple[Any, Any]:
    """Tokens and chips, where they are others than before."""
    at = shown.selection
    if wanted == before:
        return no_update, no_update
    switches = chips.chips(found, shown.off)
    if before is not None and wanted["results"] == before["results"]:
        return no_update, switches
    texts = tokens.tokens(bench.results(shown.run).values(), at.prompt)
    return tokens.shown(texts), switches


def _figure(bench: Bench, shown: Shown) -> go.Figure | None:
    at = shown.selection
    panels = visible_panels(_found(bench, shown), shown.off)
    if not panels:
        return None
    return layer_panels(panels, themed(shown.theme), layer=at.layer, position=at.position)


def _frame(bench: Bench, shown: Shown) -> pd.DataFrame | None:
    import pandas as pd

    panels = visible_panels(_found(bench, shown), shown.off)
    return pd.DataFrame(records(columns(panels, shown.selection.position))) if panels else None


TAB = Tab(
    NAME,
    "Layers",
    _layout,
    _register,
    _figure,
    _frame,
    controls.LINKED,
)

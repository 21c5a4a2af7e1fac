"""What all tabs share: the component that is read, and figures or tables."""

from __future__ import annotations

import dash
import dash_mantine_components as dmc
from dash import Input

from app import ids
from app.bench import Bench
from app.panels import forms, front
from app.panels.selection import selects
from app.panels.tab import Linked
from app.parts import choice

__all__ = ["LINKED", "layout", "register"]

SITES = [
    {"value": "resid_post", "label": "State after the block"},
    {"value": "attn_out", "label": "Attention's output"},
    {"value": "mlp_out", "label": "MLP's output"},
]
VIEWS = [{"value": "figure", "label": "Figure"}, {"value": "table", "label": "Table"}]
LINKED = {
    "site": Linked(ids.SITE, [site["value"] for site in SITES]),
    "view": Linked(ids.VIEW, [view["value"] for view in VIEWS]),
}


def layout() -> dmc.Group:
    """The two controls, in a line."""
    return dmc.Group(
        [
            choice(ids.SITE, "Component", SITES, "resid_post"),
            dmc.SegmentedControl(id=ids.VIEW, data=VIEWS, value="figure", size="xs"),
            forms.layout(),
        ],
        className="inline",
    )


def register(app: dash.Dash, bench: Bench) -> None:
    """What is not one tab's: what is in front, the component, and the settings of all forms."""
    front.register(app)
    selects(app, Input(ids.SITE, "value"))
    forms.register(app, bench)

"""Parts that pages and panels are made of."""

from __future__ import annotations

from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, dcc

from workbench.figures import graph_config

__all__ = ["RETRY", "alert", "choice", "failure", "graph", "in_browser", "notice"]

RETRY = "retry"


def alert(message: str) -> dmc.Alert:
    """What went wrong, in one line; read out at once by screen readers."""
    return dmc.Alert(message, color="red", variant="outline", mb="sm")


def notice(message: str) -> dmc.Alert:
    """What should be known, though nothing went wrong."""
    return dmc.Alert(message, color="gray", variant="outline", mb="sm")


def failure(message: str) -> dmc.Alert:
    """How a job came to grief that can be tried again."""
    retry = dmc.Button("Retry", id=RETRY, size="compact-xs", variant="default", ml="sm")
    return dmc.Alert([message, retry], color="red", variant="outline", mb="sm")


def graph(name: str | dict[str, str], height: int) -> dcc.Graph:
    """A place for a figure that is drawn in a callback, so that the layout stays small."""
    # A responsive graph ignores the height in its figure: the style sets it.
    style = {"height": height}
    config: Any = graph_config()
    return dcc.Graph(
        id=name, config=config, responsive=True, style=style, figure={"data": [], "layout": {}}
    )


def choice(name: str, label: str, options: list[Any], value: str) -> dmc.Select:
    """A list of which one is always chosen."""
    return dmc.Select(
        id=name, label=label, data=options, value=value, size="xs", allowDeselect=False
    )


def in_browser(app: Any, function: str, *wires: Any, **options: Any) -> None:
    """Wires a function of assets/workbench.js; the server is not asked."""
    app.clientside_callback(ClientsideFunction("workbench", function), *wires, **options)

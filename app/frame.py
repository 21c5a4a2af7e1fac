"""The shell around every page: head, stores, alert, theme."""

from __future__ import annotations

import logging
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html, set_props

from app import ids
from app.parts import alert

__all__ = ["INDEX", "layout", "report"]

INDEX = """<!DOCTYPE html>
<html lang="en">
  <head>{%metas%}<title>{%title%}</title>{%favicon%}{%css%}</head>
  <body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""

# Mantine's own blue is too light for white text.
MANTINE = {"primaryColor": "blue", "primaryShade": {"light": 9, "dark": 8}}
HEADER = 68  # pixels
ASIDE = {"base": 320, "xl": 400}  # narrower where the window is, so that the grid fits beside it


def layout(topbar: Any, page: tuple[Any, Any]) -> dmc.MantineProvider:
    """The whole document: the top bar, and a page as its main part and its detail panel."""
    main, detail = page
    shell = dmc.AppShell(
        [
            dmc.AppShellHeader(topbar, px="md", zIndex=200),
            dmc.AppShellMain([html.Div(id=ids.ALERT), main]),
            dmc.AppShellAside(detail, p="sm", id="aside", tabIndex=0),
        ],
        header={"height": HEADER},
        aside={"width": ASIDE, "breakpoint": "sm"},
        padding="sm",
    )
    return dmc.MantineProvider(
        [dcc.Location(id="url", refresh=False), *_stores(), shell],
        id=ids.THEME,
        forceColorScheme="light",
        theme=MANTINE,
    )


def report(error: Exception) -> None:
    """An error that nobody expected: the trace goes to the terminal, one line to the page."""
    logging.getLogger(__name__).exception("a callback failed", exc_info=error)
    line = f"Unexpected {type(error).__name__}; the terminal has the details."
    set_props(ids.ALERT, {"children": alert(line)})


def _stores() -> list[dcc.Store]:
    return [dcc.Store(id=name) for name in (ids.RUN, ids.SELECTION)]

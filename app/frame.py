"""The shell around every page: head, columns, theme, and what is said of an unexpected error."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import dash
import dash_mantine_components as dmc
from dash import dcc, html, set_props
from flask import Flask

from app import ids
from app.parts import alert

__all__ = ["layout", "new_app"]

INDEX = """<!DOCTYPE html>
<html lang="en">
  <head>{%metas%}<title>{%title%}</title>{%favicon%}{%css%}</head>
  <body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""

# Dash's polyfill is for browsers of 2015, and slows others down; of what it brings, the bundles need
# generators' runtime, which is in assets/.
UNUSED = ("/dash_table/", "/polyfill@")

# What all fields share is said once here: the forms of all instruments would say it some 200 times.
FIELDS = {
    "TextInput": {"defaultProps": {"size": "xs", "autoComplete": "off", "spellCheck": False}},
    "Select": {"defaultProps": {"size": "xs"}},
    "Autocomplete": {"defaultProps": {"size": "xs"}},
}
# Mantine's own blue is too light for white text.
MANTINE = {
    "primaryColor": "blue",
    "primaryShade": {"light": 9, "dark": 8},
    "components": FIELDS,
}


def new_app(server: Flask, path: str, title: str, *, without: str = r".*\.txt") -> dash.Dash:
    """An app for the page at `path`: every page is one of its own, and they share the server.

    Args:
        server: where it is mounted.
        path: of the page, from "/" to "/".
        title: of the browser's tab.
        without: the files of assets/ that the page does not load, as a regular expression.
    """
    shared: Any = server  # Dash's own annotation knows no Flask
    return _App(
        "workbench",
        server=shared,
        url_base_pathname=path,
        assets_folder=str(Path(__file__).parent / "assets"),
        assets_ignore=without,
        use_pages=False,
        pages_folder="",
        title=title,
        update_title="",
        index_string=INDEX,
        on_error=_report,
        suppress_callback_exceptions=True,  # parts come when they are asked for
        enable_mcp=False,
    )


class _App(dash.Dash):
    """Dash without the scripts that no page here uses."""

    def interpolate_index(self, *args: Any, **parts: Any) -> Any:
        """The document around a page's parts, which Dash gives by name."""
        scripts = parts["scripts"].splitlines()
        used = [line for line in scripts if not any(name in line for name in UNUSED)]
        base: Any = super()  # its method has no annotations
        return base.interpolate_index(*args, **parts | {"scripts": "\n".join(used)})


def layout(head: Any, main: Any, aside: Any = None) -> dmc.MantineProvider:
    """The whole document: what stays in view above, and what scrolls below and beside it."""
    columns: list[Any] = [html.Main(main, tabIndex=0)]
    if aside is not None:
        columns.append(html.Aside(aside, id="aside", tabIndex=0))
    return dmc.MantineProvider(
        [
            dcc.Location(id="url", refresh=False),
            html.Div(
                [html.Header(head), html.Div(columns, className="columns")], className="frame"
            ),
        ],
        id=ids.THEME,
        forceColorScheme="light",
        theme=MANTINE,
    )


def _report(error: Exception) -> None:
    """An error that nobody expected: the trace goes to the terminal, one line to the page."""
    logging.getLogger(__name__).exception("a callback failed", exc_info=error)
    line = f"Unexpected {type(error).__name__}; the terminal has the details."
    set_props(ids.ALERT, {"children": alert(line)})

"""The page that a person reads: it makes no request, whatever the prompts contain."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from workbench.figures import graph_config
from workbench.instrument import Instrument
from workbench.report.folder import Folder
from workbench.report.sections import Section
from workbench.report.story import told
from workbench.report.words import FILTERS

__all__ = ["PlotlyJS", "write_page"]

PlotlyJS = Literal["inline", "directory"]
BUNDLE = "plotly.min.js"
HERE = Path(__file__).parent


def write_page(
    folder: Folder, sections: Mapping[Instrument, Section], plotlyjs: PlotlyJS = "inline"
) -> None:
    """Write `report.html` of a finished folder; with "directory", plotly.min.js beside it."""
    from plotly.offline import get_plotlyjs

    if plotlyjs == "directory":
        with folder.shards.replacing(folder.path / BUNDLE) as new:
            new.write_text(get_plotlyjs(), encoding="utf-8")
    page = _environment().get_template("page.html.jinja")
    text = page.render(
        story=told(folder, sections),
        style=_own("page.css"),
        script=_own("page.js"),
        bundle=_trusted(get_plotlyjs()) if plotlyjs == "inline" else None,
        bundle_file=BUNDLE,
        config=graph_config() | {"responsive": True},
        nonce=secrets.token_urlsafe(16),
    )
    with folder.shards.replacing(folder.page) as new:
        new.write_text(text, encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _own(name: str) -> Markup:
    return _trusted((HERE / name).read_text(encoding="utf-8"))


def _trusted(text: str) -> Markup:
    """A text of this project or of plotly, which is no one's prompt."""
    return Markup(text)

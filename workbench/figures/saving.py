"""Figures as files: vector and pixel pictures at a given print size, and offline pages."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from workbench.errors import WorkbenchError

__all__ = ["BrowserMissingError", "graph_config", "save_figure"]

_PER_INCH = 96  # CSS pixels
_SCREEN = 700  # pixels, for a figure without a width of its own
_PRINT = 300  # dots per inch of a pixel picture
_PICTURES = (".png", ".svg", ".pdf")


class BrowserMissingError(WorkbenchError, RuntimeError):
    """A picture needs a Chromium-based browser on this machine, and none was found."""


def graph_config() -> dict[str, Any]:
    """Plotly settings for every page: no upload button, no address to upload to, no logo."""
    return {
        "showSendToCloud": False,
        "plotlyServerURL": "",
        "displaylogo": False,
        "displayModeBar": False,
    }


def save_figure(
    figure: go.Figure,
    path: str | Path,
    *,
    width_mm: float = 180,
    font_pt: float | None = None,
) -> Path:
    """Writes the figure to `path`, as its ending says: .html, .png, .svg or .pdf.

    Pictures are `width_mm` millimetres wide, exact in the vector formats; PNG has 300 dots an
    inch. Without `font_pt` the figure keeps its proportions. With it, the base font has that many
    points and the figure is laid out anew around it: text that was cut to fit its cells may need
    fewer columns then. An HTML page holds all it needs, works offline and keeps the size on screen.

    Returns:
        The path written.

    Raises:
        ValueError: the ending is none of the four.
        BrowserMissingError: a picture was asked for and there is no Chromium on this machine.
    """
    path = Path(path)
    if path.suffix == ".html":
        figure.write_html(path, include_plotlyjs=True, config=graph_config(), auto_play=False)
    elif path.suffix in _PICTURES:
        path.write_bytes(_picture(figure, path.suffix, width_mm, font_pt))
    else:
        known = ", ".join((".html", *_PICTURES))
        raise ValueError(f"{path.name}: the ending {path.suffix!r} is not one of {known}")
    return path


def _picture(figure: go.Figure, ending: str, width_mm: float, font_pt: float | None) -> bytes:
    asked = width_mm / 25.4 * _PER_INCH
    width = figure.layout.width or _SCREEN
    if font_pt is not None:
        # Laid out so wide that, scaled to the asked width, the base font has the asked size.
        width = asked * (figure.layout.font.size or 12) / (font_pt / 72 * _PER_INCH)
    dots = _PRINT / _PER_INCH if ending == ".png" else 1
    size = {"width": round(width), "height": figure.layout.height or round(width * 0.6)}
    scale = asked / round(width) * dots
    from kaleido.errors import ChromeNotFoundError  # kaleido is slow to import, and rarely needed

    try:
        return _render(figure, {"format": ending[1:], "scale": scale} | size)
    except ChromeNotFoundError:
        raise BrowserMissingError(
            f"a {ending} picture needs Chromium or Chrome, and none was found: "
            "install one, or save as .html"
        ) from None


def _render(figure: go.Figure, options: dict[str, Any]) -> bytes:
    import kaleido

    # Without the switch the page that draws the picture would fetch MathJax from the network.
    drawn: bytes = kaleido.calc_fig_sync(
        copy.deepcopy(figure), opts=options, kopts={"mathjax": False}
    )
    return drawn

"""How the tests read and click the figures of a page."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

PLOT = "document.querySelector('#{0} .js-plotly-plot')"

WHERE = """([id, x, y]) => {
    const plot = document.querySelector(`#${id} .js-plotly-plot`);
    const {xaxis, yaxis} = plot._fullLayout;
    const frame = plot.getBoundingClientRect();
    return [frame.x + xaxis._offset + xaxis.l2p(x), frame.y + yaxis._offset + yaxis.l2p(y)];
}"""

BOX = """(id) => {
    const plot = document.querySelector(`#${id} .js-plotly-plot`);
    const {shapes, xaxis, yaxis} = plot._fullLayout;
    const {x0, y0} = shapes[shapes.length - 1];
    return [yaxis.ticktext[y0 + 0.5], xaxis.ticktext[x0 + 0.5].split("<br>")[0]];
}"""

CELLS = """(id) => {
    const [trace] = document.querySelector(`#${id} .js-plotly-plot`).data;
    return trace.text;
}"""


def click(page: Page, graph: str, x: float, y: float) -> None:
    """Clicks a point of a figure, given in the coordinates of its axes."""
    left, top = page.evaluate(WHERE, [graph, x, y])
    page.mouse.move(left, top)
    page.mouse.click(left, top)


def boxed(page: Page) -> list[str]:
    """The labels of the row and the column that the box is around."""
    found: list[str] = page.evaluate(BOX, "lens-grid")
    return found


def cells(page: Page) -> list[list[str]]:
    """The text of the grid's cells, lowest row first."""
    found: list[list[str]] = page.evaluate(CELLS, "lens-grid")
    return found


def layout(page: Page, graph: str) -> dict[str, Any]:
    """The layout of a figure as it was sent."""
    script = f"JSON.parse(JSON.stringify({PLOT.format(graph)}.layout))"
    found: dict[str, Any] = page.evaluate(script)
    return found

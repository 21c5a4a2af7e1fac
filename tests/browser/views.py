"""How the tests read and click the figures of a page."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

PLOT = "document.querySelector('#{0} .js-plotly-plot')"

WHERE = """([id, x, y, axis]) => {
    const plot = document.querySelector(`#${id} .js-plotly-plot`);
    const {[axis]: across, yaxis} = plot._fullLayout;
    const frame = plot.getBoundingClientRect();
    return [frame.x + across._offset + across.l2p(x), frame.y + yaxis._offset + yaxis.l2p(y)];
}"""

# Drawn, with nothing on its way, and where it was a frame ago.
STANDS = """(id) => {
    const plot = document.querySelector(`#${id} .js-plotly-plot`);
    const waits = !plot?.data?.length || document.querySelector("[data-dash-is-loading]");
    const before = window.placed;
    window.placed = waits ? null : JSON.stringify(plot.getBoundingClientRect());
    return window.placed !== null && window.placed === before;
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


def click(page: Page, graph: str, x: float, y: float, axis: str = "xaxis") -> None:
    """Clicks a point of a figure, given in the coordinates of its axes."""
    stands(page, graph)
    left, top = page.evaluate(WHERE, [graph, x, y, axis])
    if (
        not 0 < top < page.evaluate("() => window.innerHeight")
    ):  # a mouse cannot click below the fold
        page.evaluate(f"() => {PLOT.format(graph)}.scrollIntoView({{block: 'center'}})")
        stands(page, graph)
        left, top = page.evaluate(WHERE, [graph, x, y, axis])
    page.mouse.move(left, top)
    page.mouse.click(left, top)


def stands(page: Page, graph: str) -> None:
    """Waits for a figure: a click where it was, or is not yet, hits what is there now."""
    page.evaluate("() => { window.placed = null; }")
    page.wait_for_function(STANDS, arg=graph)


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


def cell(page: Page | Locator, row: int, column: str) -> Locator:
    """A cell of a table of rows, by its row from 0 and its column's name."""
    table = page.locator(".layers-table")
    expect(table.locator("thead th").filter(has_text=re.compile(f"^{column}$"))).to_have_count(1)
    names = table.locator("thead th").all_inner_texts()
    return table.locator("tbody tr").nth(row).locator("th, td").nth(names.index(column))

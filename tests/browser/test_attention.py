"""The Attention tab: heads at a glance, one head's pattern, and the selection both ways."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

from tests.browser.views import PLOT, click, layout

Opened = Callable[..., Page]
QUERY = "?tab=attention&prompt=one+two+three+one+two&model=atlas"


def key_axis(page: Page) -> str:
    title: str = layout(page, "attention-pattern")["xaxis"]["title"]["text"]
    return title


def test_a_head_is_chosen_its_pattern_drawn_and_the_place_shared(opened: Opened) -> None:
    page = opened(QUERY)
    page.get_by_role("button", name="Run Attention").click()
    plot = page.locator("#attention-pattern .js-plotly-plot .main-svg").first
    expect(plot).to_be_visible()
    click(page, "attention-overview", 2, 1)  # the third head of layer 2
    expect(page.locator("#detail-heading")).to_contain_text("layer 2")
    page.wait_for_function(
        f"() => {PLOT.format('attention-pattern')}.layout.xaxis.title.text === 'layer 2, head 2: key'"
    )
    click(page, "attention-pattern", 0, 1)  # the query at position 1
    expect(page.locator("#detail-heading")).to_contain_text("position 1")
    page.get_by_role("textbox", name="Score").click()
    page.get_by_role("option", name="induction", exact=True).click()
    page.wait_for_function("() => location.search.includes('score=induction')")
    other = opened("?" + urlsplit(page.url).query)
    expect(other.locator("#attention-pattern .js-plotly-plot .main-svg").first).to_be_visible()
    assert key_axis(other) == "layer 2, head 2: key"
    expect(other.locator("#detail-heading")).to_contain_text("layer 2 · position 1")
    expect(other.get_by_role("textbox", name="Score")).to_have_value("induction")
    other.get_by_text("Table", exact=True).click()
    expect(
        other.locator(".layers-table:visible th", has_text="induction_chance").first
    ).to_be_visible()

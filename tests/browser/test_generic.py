"""The tab of an instrument that the app knows nothing of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.views import cell

Opened = Callable[..., Page]


def panel(page: Page) -> Locator:
    return page.locator("[role=tabpanel]:visible")


def plot(page: Page) -> Locator:
    return panel(page).locator(".js-plotly-plot .main-svg").first


def said(page: Page) -> Locator:
    return panel(page).locator("[aria-live]")


def run_swing(page: Page) -> None:
    page.get_by_role("button", name="Run Swing").click()
    expect(plot(page)).to_be_visible()


@pytest.fixture
def swing(opened: Opened) -> Page:
    page = opened("?tab=swing")
    expect(panel(page).get_by_text("not yet run on this prompt")).to_be_visible()
    return page


def test_one_line_names_what_was_not_run_and_leads_to_its_tabs(opened: Opened) -> None:
    page = opened()
    waiting = page.get_by_role("group", name="Not yet run on this prompt")
    waiting.get_by_role("button", name="Swing <i>").click()
    expect(page.get_by_role("tab", name="Swing <i>")).to_have_attribute("aria-selected", "true")
    run_swing(page)
    page.get_by_role("tab", name="Layers").click()
    switch = page.get_by_role("button", name="swing", exact=True)
    expect(switch).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#layers-figure")).to_contain_text("swing by part")


def test_settings_of_the_form_are_used_shown_and_linked(swing: Page, opened: Opened) -> None:
    swing.get_by_role("textbox", name="direction").click()
    swing.get_by_role("option", name="down", exact=True).click()
    swing.get_by_label("scale").fill("2.5")
    run_swing(swing)
    expect(panel(swing)).to_contain_text("direction down, scale 2.5")
    swing.get_by_text("Table", exact=True).click()
    expect(cell(panel(swing), 0, "swing")).to_have_text("15")
    expect(cell(panel(swing), 0, "part")).to_have_text("<b>left</b>")
    swing.wait_for_function("() => location.search.includes('swing.scale=2.5')")
    other = opened("?" + urlsplit(swing.url).query)
    expect(other.get_by_label("scale")).to_have_value("2.5")
    expect(panel(other)).to_contain_text("direction down, scale 2.5")
    expect(cell(panel(other), 0, "swing")).to_have_text("15")


def test_a_refused_setting_is_said_in_one_line(swing: Page) -> None:
    swing.get_by_label("scale").fill("0")
    swing.get_by_role("button", name="Run Swing").click()
    expect(swing.get_by_role("alert")).to_contain_text("scale is 0: expected another number")
    swing.get_by_label("scale").fill("3")
    run_swing(swing)
    expect(swing.get_by_role("alert")).to_have_count(0)


def test_a_refused_model_is_said_where_the_instrument_would_stand(opened: Opened) -> None:
    page = opened("?model=deep&prompt=The+city+of&tab=swing")
    page.get_by_role("button", name="Run Swing").click()
    line = "swing: 30 layers: expected at most 20"
    expect(said(page)).to_have_text(line)
    page.get_by_role("tab", name="Layers").click()
    expect(page.get_by_role("group", name="Swing <i>")).to_contain_text(line)
    expect(page.locator("#layers-figure .heatmaplayer text").first).to_be_visible()


def test_a_position_that_was_not_read_is_said(swing: Page) -> None:
    run_swing(swing)
    swing.locator(".focus:visible").focus()
    swing.keyboard.press("Home")
    expect(said(swing)).to_contain_text("no position 0")
    expect(plot(swing)).to_be_hidden()
    expect(cell(panel(swing), 0, "position")).to_have_text("11")
    expect(swing.locator("#detail-others")).to_contain_text("no position 0")
    swing.get_by_role("tab", name="Layers").click()
    expect(swing.get_by_role("group", name="Swing <i>")).to_contain_text("no position 0")
    expect(swing.locator("#layers-figure .heatmaplayer text").first).to_be_visible()


def test_a_click_in_its_figure_selects(opened: Opened) -> None:
    page = opened("?tab=whole_set")
    page.get_by_role("button", name="Run Whole set").click()
    expect(plot(page)).to_be_visible()
    point = panel(page).locator(".scatterlayer .point").nth(2)
    expect(point).to_be_visible()
    box = point.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#detail-heading")).to_contain_text("layer 2")
    expect(page.locator("#detail-others")).to_contain_text("mean length")


def test_its_rows_are_exported(swing: Page) -> None:
    run_swing(swing)
    swing.get_by_text("Export", exact=True).click()
    with swing.expect_download() as download:
        swing.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "swing.csv"
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 1 + 7 * 2
    assert "<b>left</b>" in lines[1]

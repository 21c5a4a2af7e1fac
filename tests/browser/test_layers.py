"""The Layers tab: one row a layer, one selection with every other view."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Locator, Page, Response, expect

from tests.browser.views import click, layout

Opened = Callable[..., Page]

FRAME = """layer => {
    const plot = document.querySelector('#layers-figure .js-plotly-plot');
    const [row] = plot?._fullLayout?.shapes ?? [];
    return row?.y0 === layer - 0.5 && row?.y1 === layer + 0.5;
}"""
TRACES = "() => document.querySelector('#layers-figure .js-plotly-plot').data.length"
BEST = """() => document.querySelector('#layers-figure .js-plotly-plot').data
    .find(trace => trace.text).text.map(row => row[0])"""
LONG = "The Eiffel Tower is located in the city of Paris and the Colosseum in Rome and " * 9


@pytest.fixture
def layers(opened: Opened) -> Page:
    page = opened()
    heading(page, "layer 6", "position 11")
    expect(page.locator("#layers-figure .heatmaplayer text").first).to_be_visible()
    return page


def heading(page: Page, *parts: str) -> None:
    for part in parts:
        expect(page.locator("#detail-heading")).to_contain_text(part)


def framed(page: Page, layer: int) -> None:
    page.wait_for_function(FRAME, arg=layer)


def pressed(page: Page) -> Locator:
    return page.locator(".token[aria-pressed=true]")


def chip(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def best(page: Page) -> list[str]:
    found: list[str] = page.evaluate(BEST)
    return found


def test_it_is_in_front_and_reads_the_selected_token(layers: Page) -> None:
    expect(layers.get_by_role("tab", name="Layers")).to_have_attribute("aria-selected", "true")
    expect(layers.locator(".js-plotly-plot")).to_have_count(3)  # its own, and the detail's two
    framed(layers, 6)
    expect(pressed(layers)).to_have_text("·of")
    assert best(layers)[-1] == "·Paris"
    assert best(layers)[0] == "·of"  # the embedding is at the bottom


def test_a_click_selects_everywhere_and_every_view_selects_here(layers: Page) -> None:
    click(layers, "layers-figure", 0.5, 3, axis="xaxis3")
    heading(layers, "layer 6")  # no point of a line is there
    click(layers, "layers-figure", 5, 3)
    heading(layers, "layer 3", "position 5", "·Tower")
    framed(layers, 3)
    expect(pressed(layers)).to_have_text("·Tower")
    click(layers, "layers-figure", 1, 2, axis="xaxis2")
    heading(layers, "layer 2", "position 5")
    layers.get_by_role("tab", name="Logit lens").click()
    expect(layers.locator("#lens-grid .heatmaplayer text").first).to_be_visible()
    shapes = layout(layers, "lens-grid")["shapes"]
    assert (shapes[-1]["x0"], shapes[-1]["y0"]) == (4.5, 1.5)
    click(layers, "lens-grid", 7, 4)
    heading(layers, "layer 4", "position 7")
    layers.get_by_role("tab", name="Layers").click()
    framed(layers, 4)
    expect(pressed(layers)).to_have_text("·located")


def test_a_token_button_moves_all_panels_to_its_position(layers: Page) -> None:
    layers.locator(".token", has_text="·Tower").click()
    heading(layers, "layer 6", "position 5")
    expect(pressed(layers)).to_have_text("·Tower")
    expect(layers.locator("#detail-sentence")).to_contain_text("Top token")
    token = layers.locator("#detail-sentence").inner_text().split("“")[1].split("”")[0]
    layers.wait_for_function(f"token => ({BEST})().at(-1) === token", arg=token)


def test_arrow_keys_move_the_frame_without_drawing_anew(layers: Page) -> None:
    answers: list[Response] = []
    layers.on("response", lambda answer: answers.append(answer) if layers_answer(answer) else None)
    layers.locator("#layers-focus").focus()
    layers.keyboard.press("ArrowDown")
    framed(layers, 5)
    heading(layers, "layer 5")
    assert answers == []
    layers.keyboard.press("Home")
    heading(layers, "layer 5", "position 0", "input The")
    layers.keyboard.press("ArrowUp")
    framed(layers, 6)


def layers_answer(response: Response) -> bool:
    return '"output":"..layers-figure.figure' in (response.request.post_data or "")


def test_a_panel_switched_off_stays_off_in_the_link(layers: Page, opened: Opened) -> None:
    before = layers.evaluate(TRACES)
    chip(layers, "positions").click()
    layers.wait_for_function(f"before => ({TRACES})() === before - 1", arg=before)
    expect(chip(layers, "positions")).to_have_attribute("aria-pressed", "false")
    layers.wait_for_function("() => location.search.includes('off=logit_lens.positions')")
    other = opened("?" + urlsplit(layers.url).query)
    expect(chip(other, "positions")).to_have_attribute("aria-pressed", "false")
    expect(other.locator("#layers-figure .heatmaplayer text").first).to_be_visible()
    assert other.evaluate(TRACES) == before - 1
    chip(other, "positions").click()
    other.wait_for_function(f"before => ({TRACES})() === before", arg=before)


def test_an_instrument_switched_off_is_not_measured_with_the_next_run(layers: Page) -> None:
    expect(layers.locator("#detail-others")).to_contain_text("Strength")
    chip(layers, "Strength").click()
    expect(chip(layers, "Strength")).to_have_attribute("aria-pressed", "false")
    layers.get_by_label("Prompt", exact=True).fill("The Colosseum is located in the city of")
    layers.get_by_role("button", name="Run", exact=True).click()
    expect(layers.locator("#detail-others")).not_to_contain_text("Strength")
    chip(layers, "Strength").click()
    expect(layers.get_by_role("group", name="Strength")).to_contain_text("press Run")


def test_no_panel_is_said(layers: Page) -> None:
    instruments = layers.locator(".chip.whole[aria-pressed=true]").all_inner_texts()
    for name in ("positions", "tokens", "probability", "spread", *instruments):
        chip(layers, name).click()
        expect(chip(layers, name)).to_have_attribute("aria-pressed", "false")
    expect(layers.get_by_text("No panel is switched on")).to_be_visible()
    expect(layers.locator("#layers-figure")).to_be_hidden()


def test_the_table_says_the_same_and_selects(layers: Page) -> None:
    top = best(layers)
    layers.get_by_text("Table", exact=True).click()
    rows = layers.locator(".layers-table tbody tr")
    expect(rows).to_have_count(7)
    expect(rows.first.get_by_role("rowheader")).to_have_text("6")
    expect(rows.last.get_by_role("rowheader")).to_have_text("emb")
    expect(layers.locator("#layers-figure")).to_be_hidden()
    for row, token in zip(rows.all(), reversed(top), strict=True):
        expect(row).to_contain_text(token)
    rows.nth(2).click()
    heading(layers, "layer 4")
    expect(layers.locator(".layers-table [aria-current]")).to_contain_text(top[4])
    layers.locator("#layers-table").focus()
    layers.keyboard.press("ArrowLeft")
    heading(layers, "layer 4", "position 10")
    expect(layers.locator(".layers-table")).to_contain_text("position 10")


def test_its_panels_are_exported(layers: Page) -> None:
    layers.get_by_text("Export", exact=True).click()
    with layers.expect_download() as download:
        layers.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "layers.csv"
    header, first, *others = Path(download.value.path()).read_text().splitlines()
    assert header.startswith("layer,Logit lens: p(top-1) by position: position 11,")
    assert first.startswith("6,")
    assert "·Paris" in first
    assert len(others) == 6


def test_markup_in_a_token_is_text(opened: Opened) -> None:
    page = opened("?prompt=" + quote("<img src=x onerror=alert(1)> <b>bold</b>"))
    expect(page.locator(".token").first).to_have_text("<")
    page.get_by_text("Table", exact=True).click()
    expect(page.locator(".layers-table")).to_be_visible()
    assert page.locator("main img, aside img, main b").count() == 0


def test_a_deep_model_and_a_long_prompt_stay_within_bounds(opened: Opened) -> None:
    page = opened("?model=deep&layer=17&prompt=" + quote(LONG))
    expect(page.locator("#layers-figure .heatmaplayer text").first).to_be_visible()
    assert page.locator(".token").count() > 150
    framed(page, 17)
    expect(pressed(page)).to_be_in_viewport()
    for box in ("html", "main"):
        assert page.locator(box).evaluate("box => box.scrollWidth <= box.clientWidth")
    page.get_by_text("Table", exact=True).click()
    expect(page.locator(".layers-table tbody tr")).to_have_count(31)


def test_a_figure_that_arrives_late_has_its_frame_at_the_present_layer(layers: Page) -> None:
    layers.locator("#layers-focus").focus()
    for key in ("Home", "ArrowDown", "ArrowRight", "ArrowDown", "ArrowDown"):
        layers.keyboard.press(key)
    heading(layers, "layer 3", "position 1")
    layers.wait_for_function("() => !document.querySelector('[data-dash-is-loading]')")
    framed(layers, 3)
    expect(pressed(layers)).to_have_attribute("data-position", "1")

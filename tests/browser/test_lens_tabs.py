"""Tabs of lenses that are drawn by the generic tab: gradients, an edit, the page of a neuron."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.browser.test_generic import panel

Opened = Callable[..., Page]


def drawn(page: Page) -> Locator:
    return panel(page).locator(".js-plotly-plot")


def test_gradients_are_read_beside_their_controls(opened: Opened) -> None:
    page = opened("?tab=backward_lens")
    # The worker may still be starting.
    expect(page.locator("#detail-heading")).to_contain_text("layer 6")
    page.get_by_role("button", name="Run Backward lens").click()
    expect(drawn(page)).to_contain_text("shift of ff2, random target")
    expect(drawn(page)).to_contain_text("twin: rest (control)")
    detail = page.locator(".detail")
    expect(detail).to_contain_text("ff2: rank of ·Paris, shift")
    # The rest is on the layer axis too, with its controls.
    page.get_by_role("tab", name="Layers").click()
    expect(page.locator("#layers-figure, .js-plotly-plot").first).to_contain_text("rank, ff2")


def test_an_edit_is_made_from_its_tab(opened: Opened) -> None:
    page = opened("?tab=edit")
    # The worker may still be starting.
    expect(page.locator("#detail-heading")).to_contain_text("layer 6")
    page.get_by_role("textbox", name="layers").fill("4,5")
    page.get_by_role("button", name="Run Edit").click()
    expect(panel(page)).to_contain_text("layers 4,5, eta 1.0")
    expect(drawn(page)).to_contain_text("imprint and shift")
    expect(page.locator(".detail")).to_contain_text("Edit")


def test_the_list_shows_another_neurons_page(opened: Opened) -> None:
    page = opened("?tab=neurons&neurons.neurons=3,17")
    page.get_by_role("button", name="Run Neurons").click()
    shown = drawn(page)
    expect(shown).to_contain_text("Layer 1, neuron 3:")
    shown.locator(".updatemenu-header").click()
    shown.locator(".updatemenu-dropdown-button").filter(has_text="neuron 17").click()
    expect(shown).to_contain_text("Layer 1, neuron 17:")

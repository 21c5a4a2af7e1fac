"""Tabs of lenses that are drawn by the generic tab: an edit, and the page of a neuron."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.test_generic import panel, plot

Opened = Callable[..., Page]


def test_an_edit_is_made_from_its_tab(opened: Opened) -> None:
    page = opened("?prompt=The+Colosseum+can+be+found+in&target=+London&tab=edit")
    page.get_by_label("layers").fill("4,5")
    page.get_by_role("button", name="Run Edit").click()
    expect(plot(page)).to_be_visible()
    expect(panel(page)).to_contain_text("layers 4,5, eta 1.0")
    expect(plot(page)).to_contain_text("imprint and shift")
    expect(page.locator(".detail")).to_contain_text("Edit")


def test_the_list_shows_another_neurons_page(opened: Opened) -> None:
    page = opened("?tab=neurons&neurons.neurons=3,17")
    page.get_by_role("button", name="Run Neurons").click()
    expect(plot(page)).to_contain_text("Layer 1, neuron 3:")
    shown = panel(page).locator(".js-plotly-plot")
    shown.locator(".updatemenu-header").click()
    shown.locator(".updatemenu-dropdown-button").filter(has_text="neuron 17").click()
    expect(plot(page)).to_contain_text("Layer 1, neuron 17:")

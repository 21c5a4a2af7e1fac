"""The Simulate page: a phase diagram run as a job, cancelled, drawn, exported, linked, and listed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

Opened = Callable[..., Page]
FIGURE = ".set-figure .js-plotly-plot"
TRACES = f"document.querySelector('{FIGURE}').data.map((trace) => trace.name || trace.type)"


def fill(page: Page, **settings: str) -> None:
    for name, text in settings.items():
        page.locator(f'input[id*="phase_diagram"][id*=\'"{name}"\']').fill(text)


def test_a_phase_diagram_is_run_cancelled_drawn_and_linked(opened: Opened) -> None:
    page = opened("simulate/")
    expect(page.get_by_role("link", name="Simulate")).to_have_attribute("aria-current", "page")
    expect(page.get_by_text("noise-free attention has no critical temperature")).to_be_visible()

    fill(page, betas="0.5,1,2,4", tokens="6", d="8", seeds="2", time="100000")
    page.get_by_role("button", name="Run as a job").click()
    row = page.locator("#progress")
    expect(row).to_contain_text(re.compile(r"Simulating, [1-9]\d* of \d+ steps"))
    expect(page.get_by_role("link", name="Jobs (1)")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_have_text("Cancelled: nothing was kept.")
    expect(row).to_be_hidden()

    fill(page, time="12")
    page.get_by_role("button", name="Run as a job").click()
    expect(page.locator(FIGURE)).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(FIGURE)).to_contain_text("6 tokens in 8 dimensions")
    kinds = [name.partition(":")[0] for name in page.evaluate(TRACES)]
    assert kinds == [
        "heatmap",
        "simulated",
        "simulated",
        "theory",
    ]  # of which one: not yet at t = 12
    expect(page).to_have_url(
        re.compile(r"\?experiment=phase_diagram&betas=0.5%2C1%2C2%2C4&tokens=6&d=8&seeds=2&time=12")
    )
    with page.expect_download() as rows:
        page.get_by_role("button", name="All rows as CSV").click()
    lines = Path(rows.value.path()).read_text(encoding="utf-8").splitlines()
    assert rows.value.suggested_filename == "phase_diagram.csv"
    assert lines[0].startswith("beta,seed,time,mean_cosine")
    assert len(lines) == 1 + 4 * 2 * 161
    page.get_by_text("Export", exact=True).click()
    with page.expect_download() as drawn:
        page.get_by_role("button", name="As SVG").click()
    assert "6 tokens in 8 dimensions" in Path(drawn.value.path()).read_text(encoding="utf-8")

    # the link fills the form, and what is stored is there at once
    other = opened("simulate/?" + page.url.partition("?")[2])
    expect(other.locator(FIGURE)).to_contain_text("6 tokens in 8 dimensions")
    tokens = other.locator('input[id*="phase_diagram"][id*=\'"tokens"\']')
    expect(tokens).to_have_value("6")

    listed = opened("jobs/")
    done = listed.locator("tbody tr").filter(has_text="Phase diagram")
    expect(done.nth(2)).to_contain_text("cancelled")
    done.first.get_by_role("link", name="Open the result").click()
    expect(listed.locator(FIGURE)).to_contain_text("6 tokens in 8 dimensions")


def test_what_cannot_be_simulated_is_said(opened: Opened) -> None:
    page = opened("simulate/?experiment=staircase&tokens=1")
    expect(page.get_by_role("alert")).to_contain_text("tokens is 1: expected a whole number")
    expect(page.get_by_role("textbox", name="Experiment")).to_have_value("Staircase")
    page.locator('input[id*="staircase"][id*=\'"tokens"\']').fill("4")
    page.locator('input[id*="staircase"][id*=\'"time"\']').fill("5")
    page.get_by_role("button", name="Run as a job").click()
    expect(page.locator(FIGURE)).to_contain_text("Metastability")

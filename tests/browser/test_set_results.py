"""What a prompt set's job has come to, on the page Prompt sets: sparse probes, one neuron, and others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

import workbench as wb
from probes import SparseProbe
from tests.browser.views import PLOT
from tests.jobs.gates import Gates
from workbench.instrument import find
from workbench.jobs import Desk, Request

Opened = Callable[..., Page]

XSS = "<img src=x onerror=alert(1)>"
WORDS = ("key", "table", "river", "chair", "window", "bottle", "picture", "mountain")


def labelled() -> list[wb.Prompt]:
    """Plural or not; the name of the feature is hostile."""
    return [
        wb.Prompt(f"{frame} the {word}{'s' * value}", group=word, labels={XSS: value})
        for word in WORDS
        for frame in ("We saw", "They spoke about")
        for value in (0, 1)
    ]


@pytest.fixture(scope="module")
def probed(site: object) -> int:
    """The number of a job that has probed a small set."""
    desk: Desk = site.desk  # type: ignore[attr-defined]
    probe = SparseProbe(k=(1, 2), layers=(2, 5), permutations=20, shortlist=10)
    return desk.wait(desk.submit(Request("atlas", labelled(), [probe], title="Plurals <b>"))).id


def titles(page: Page, graph: str) -> str:
    expect(page.locator(f"#{graph} .js-plotly-plot .gtitle")).to_be_visible()
    found: str = page.evaluate(f"{PLOT.format(graph)}.layout.title.text")
    return found


def test_sparse_probes_from_the_whole_to_one_neuron(opened: Opened, probed: int) -> None:
    page = opened(f"sets/?job={probed}")
    expect(page.locator("#set-head")).to_contain_text(
        f"Job {probed}: Plurals <b>, 32 prompts on atlas"
    )
    expect(page.get_by_role("textbox", name="Feature")).to_have_value(XSS)
    assert "&lt;img" in titles(page, "probe-feature")
    layer = page.get_by_role("textbox", name="Layer", exact=True).input_value()
    assert f"layer {layer}" in titles(page, "probe-units")
    other = {"2": "5", "5": "2"}[layer]
    page.get_by_role("textbox", name="Layer", exact=True).click()
    page.get_by_role("option", name=other, exact=True).click()
    expect(page.locator("#probe-units .gtitle")).to_contain_text(f"layer {other}")
    neuron = page.get_by_role("textbox", name="Neuron").input_value()
    page.get_by_role("button", name="Look into this neuron").click()
    expect(page.get_by_role("heading", name=f"Neuron {neuron} of layer {other}")).to_be_visible()
    expect(page.locator("#probe-neuron .js-plotly-plot .gtitle")).to_be_visible()
    assert page.locator("main img").count() == 0
    assert page.url.endswith(f"/sets/?job={probed}")
    with page.expect_download() as rows:
        page.get_by_role("button", name="All rows as CSV").click()
    assert len(rows.value.path().read_text(encoding="utf-8").splitlines()) == 1 + 2 * 2
    menu = page.locator(".set-figure").filter(has=page.locator("#probe-units"))
    menu.get_by_text("Export").click()
    with page.expect_download() as figure:
        menu.get_by_role("button", name="As HTML").click()
    saved = figure.value.path().read_text(encoding="utf-8")
    assert f"layer {other}: the units that probes take first" in saved
    assert XSS not in saved


def test_a_set_is_followed_cancelled_and_tried_in_place(
    opened: Opened, gates: Gates, desk: Desk
) -> None:
    swing = find("swing")(folder=gates.folder)  # type: ignore[call-arg]
    number = desk.submit(Request("atlas", ["The city of", "The river"], [swing], batch_size=1))
    gates.wait_for_batch()
    page = opened(f"sets/?job={number}")
    expect(page.locator("#progress")).to_contain_text("Measuring")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#queued")).to_have_text(f"Job {number}: cancelled. See its log.")
    expect(page.get_by_role("alert")).to_have_text("Cancelled: nothing was measured.")
    expect(page.locator("#progress")).to_be_hidden()


def test_made_sets_and_pasted_lines_are_measured_and_summarised(opened: Opened) -> None:
    page = opened("sets/")
    page.get_by_role("textbox", name="Bundled set").click()
    page.get_by_role("option", name="tenses").click()
    expect(page.locator("#preview")).to_contain_text("made:tenses: 168 prompts")
    page.get_by_text("or paste lines").click()
    field = page.get_by_label("A prompt a line")
    field.fill('{"text": 3}')
    page.get_by_role("button", name="Use these lines").click()
    expect(page.get_by_role("alert")).to_contain_text("pasted lines, line 1: no text")
    lines = [{"text": "The city of", "target": " Rome"}, {"text": XSS, "target": " a"}]
    field.fill("\n".join(map(json.dumps, lines)))
    page.get_by_role("button", name="Use these lines").click()
    expect(page.locator("#preview")).to_contain_text("pasted lines: 2 prompts:")
    page.get_by_role("button", name="Run as a job").click()
    expect(page.locator("#set-head")).to_contain_text("pasted lines, 2 prompts on atlas")
    expect(page.locator("#set-body .js-plotly-plot").first).to_be_visible()
    expect(page).to_have_url(re.compile(r"/sets/\?job=\d+$"))
    assert page.locator("main img").count() == 0
    link = page.get_by_role("link", name="Prompt by prompt in the Inspector")
    assert link.get_attribute("href") == "/" + page.url.partition("/sets/")[2]

"""Links, what they carry, and what the page says where its fields and its numbers part."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Site
from workbench.jobs import ModelSpec

Opened = Callable[..., Page]

LONG = "The Eiffel Tower is located in the city of Paris . " * 5 + "The river Seine runs through"


def prompt(page: Page) -> str:
    return page.get_by_label("Prompt", exact=True).input_value()


@pytest.fixture
def own(models: dict[str, ModelSpec], tmp_path: Path) -> Iterator[Site]:
    """A server of the test's own."""
    site = Site(tmp_path, models)
    site.open()
    yield site
    site.close()


def test_a_long_prompts_link_survives_a_restart(own: Site, opened: Opened) -> None:
    page = opened("", at=own.address)
    expect(page.locator("#detail-heading")).to_contain_text("layer 6")
    page.get_by_label("Prompt", exact=True).fill(LONG)
    page.get_by_label("Target token").fill("")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#detail-heading")).to_contain_text(re.compile(r"position [6-9]\d"))
    heading = page.locator("#detail-heading").inner_text()
    query = page.url.partition("?")[2]
    assert "prompt_id=" in query
    assert len(query) < 250
    own.close()
    own.open()
    again = opened(f"?{query}", at=own.address)
    expect(again.locator("#detail-heading")).to_have_text(heading)
    assert prompt(again) == LONG


def test_changed_fields_are_marked_until_they_are_measured(page: Page) -> None:
    mark = page.locator("#stale")
    expect(mark).to_be_hidden()
    page.get_by_label("Prompt", exact=True).fill("The Colosseum is located in the city of")
    expect(mark).to_contain_text("Shown: atlas, “The Eiffel Tower is located in the city of”")
    page.get_by_label("Target token").fill(" Paris and Rome")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("is 3 tokens")
    expect(mark).to_contain_text("Shown: atlas, “The Eiffel Tower")
    page.get_by_label("Target token").fill(" Rome")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#detail-facts")).to_contain_text("·Rome")
    expect(mark).to_be_hidden()


def test_a_link_made_with_other_weights_says_so(opened: Opened) -> None:
    page = opened("?model=atlas&prompt=The+city+of&weights=00000000")
    expect(page.get_by_role("alert")).to_contain_text(
        "made with other weights of atlas (00000000, here "
    )


BAD = {
    "model=../../x": "no model '../../x' here: expected one of atlas, deep, broken",
    "layer=last": "layer=last in this link is no whole number",
    "with=phrenology": "unknown instrument 'phrenology'",
    "logit_lens.top_k=0": "top_k is 0",
    "job=4711": "no job 4711 here",
}


def test_a_bad_link_fills_the_fields_and_says_what_is_wrong(opened: Opened, address: str) -> None:
    page = opened("jobs/")
    for query, says in BAD.items():
        page.goto(f"{address}?prompt=The+city+of&target=+Paris&{query}")
        expect(page.get_by_role("alert")).to_contain_text(says)
        expect(page.get_by_text("Nothing measured yet")).to_be_visible()
        assert prompt(page) == "The city of"
        assert page.get_by_label("Target token").input_value() == " Paris"


def test_parts_of_a_link_that_mean_nothing_here_are_said(opened: Opened) -> None:
    link = "?model=deep&layer=99&position=-0&site=soul&tab=moon&off=x.y&colour=hue&hue=red"
    page = opened(link.replace("position=-0", "position=400"))
    said = page.get_by_role("alert")
    for words in (
        "There is no layer 99 here: 30 is shown.",
        "There is no position 400 here: 11 is shown.",
        "There is no component soul here: resid_post is shown.",
        "cannot use “hue”, which is no part of a link; the tab moon; the panel x.y; the colour hue.",
    ):
        expect(said).to_contain_text(words)
    assert "moon" not in page.url

"""The Causal trace tab: a subject is chosen, a job runs, and its heat maps share the selection."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Locator, Page, expect

from tests.browser.views import click, layout

Opened = Callable[..., Page]
TEXT = "The+Eiffel+Tower+is+located+in+the+city+of"
QUERY = f"?tab=causal_trace&prompt={TEXT}&target=+Paris&model=atlas"
FIGURE = "trace-figure"
NOTHING = "No subject: drag over its tokens, or choose the first and then the last"


def token(page: Page, place: int) -> Locator:
    return page.locator("#subject-tokens .token").nth(place)


def drag(page: Page, first: int, last: int) -> None:
    token(page, first).hover()
    page.mouse.down()
    for place in range(first, last + 1):
        token(page, place).hover()
    page.mouse.up()


def drawn(page: Page) -> None:
    expect(page.locator(f"#{FIGURE} .js-plotly-plot .main-svg").first).to_be_visible()


def asked(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_a_subject_is_dragged_traced_and_linked_to(opened: Opened) -> None:
    page = opened(QUERY)
    expect(page.locator("#subject-said")).to_have_text(NOTHING)
    page.get_by_role("button", name="Run Causal trace").click()
    expect(page.get_by_text("has no subject: give one").first).to_be_visible()
    drag(page, 1, 5)
    expect(page.locator("#subject-said")).to_have_text("Subject: ·Eiffel·Tower, tokens 1 to 5")
    page.get_by_text("Settings and corrupted text").click()
    page.get_by_label("samples").fill("2")
    page.get_by_role("button", name="Run Causal trace").click()
    drawn(page)
    page.wait_for_function("() => location.search.includes('subject=4%3A16')")
    assert [layout(page, FIGURE)[f"xaxis{n}"]["title"]["text"] for n in ("", "2", "3")] == [
        "state",
        "MLP window",
        "attention window",
    ]
    page.get_by_text("Settings and corrupted text").click()
    page.locator(f"#{FIGURE}").scroll_into_view_if_needed()
    click(page, FIGURE, 5, 2, "xaxis2")  # the last subject token at layer 2, in the MLP's map
    expect(page.locator("#detail-heading")).to_contain_text("layer 2 · position 5")
    expect(page.locator("aside")).to_contain_text("effect of MLP")
    page.get_by_role("textbox", name="Colour").click()
    page.get_by_role("option", name="Normalised effect").click()
    page.wait_for_function("() => location.search.includes('trace_value=normalised')")
    stale = page.get_by_text("Shown with another subject or corrupted text than those chosen now")
    expect(stale).to_be_hidden()
    drag(page, 2, 4)
    expect(stale).to_be_visible()
    drag(page, 1, 5)
    expect(stale).to_be_hidden()
    other = opened("?" + urlsplit(page.url).query)
    drawn(other)
    expect(other.locator("#subject-said")).to_have_text("Subject: ·Eiffel·Tower, tokens 1 to 5")
    expect(other.locator("#detail-heading")).to_contain_text("layer 2 · position 5")
    expect(other.get_by_role("textbox", name="Colour")).to_have_value("Normalised effect")


def test_the_first_and_the_last_token_are_chosen_by_keys(opened: Opened) -> None:
    page = opened(QUERY)
    token(page, 5).press("Enter")
    expect(page.locator("#subject-said")).to_have_text("Subject: ·Tower, token 5")
    token(page, 1).press("Space")
    expect(page.locator("#subject-said")).to_have_text("Subject: ·Eiffel·Tower, tokens 1 to 5")
    token(page, 3).press("Enter")  # a third choice begins anew
    expect(page.locator("#subject-said")).to_have_text("Subject: ff, token 3")
    page.get_by_role("button", name="No subject").click()
    expect(page.locator("#subject-said")).to_have_text(NOTHING)
    page.get_by_text("Settings and corrupted text").click()
    page.get_by_label("Corrupted text").fill("The Eiffel Tower is located in the")
    page.get_by_role("button", name="Run Causal trace").click()
    expect(page.get_by_text("expected as many").first).to_be_visible()
    page.get_by_label("Corrupted text").fill("The Eiffel Tower is located in the city off")
    page.get_by_role("button", name="Run Causal trace").click()
    drawn(page)
    assert asked(page)["corrupted"] == ["The Eiffel Tower is located in the city off"]
    assert "subject" not in asked(page)

"""Many prompts at once: chosen or uploaded, run as a job, opened in the Inspector."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

Opened = Callable[..., Page]


def upload(page: Page, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    page.locator("#upload input").set_input_files(path)


def test_a_bundled_set_is_measured_and_opens_in_the_inspector(opened: Opened) -> None:
    page = opened("sets/")
    page.get_by_role("textbox", name="Bundled set").click()
    page.get_by_role("option", name="classics").click()
    expect(page.locator("#preview")).to_contain_text("classics: 15 prompts, the first 8 of them:")
    expect(page.locator("#preview tbody tr")).to_have_count(8)
    page.get_by_text("Settings of Logit lens").click()
    page.locator('input[id*="logit_lens"][id*="top_k"]').fill("4")
    page.get_by_role("button", name="Run as a job").click()
    expect(page.locator("#queued")).to_have_text(re.compile(r"Job \d+: done\. See its log\."))
    page.get_by_role("link", name="See its log").click()
    row = page.locator("tbody tr").filter(has_text="classics").first
    expect(row).to_contain_text("done")
    row.get_by_role("link").click()
    expect(page.locator("#detail-heading")).to_contain_text("layer 6 · position 11")
    expect(page.locator("#detail-facts")).to_contain_text("foil ·Auckland")
    assert "logit_lens.top_k=4" in page.url

    page.get_by_role("textbox", name="One of 15 prompts").fill("japan")
    page.get_by_role("option", name="The capital of Japan is").click()
    expect(page.locator("#detail-heading")).to_contain_text("position 4 · input ·is")
    expect(page.locator("#detail-facts")).to_contain_text("target ·Tokyo")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("The capital of Japan is")
    expect(page.locator("#stale")).to_be_hidden()

    other = opened("?" + page.url.partition("?")[2])
    expect(other.locator("#detail-heading")).to_contain_text("position 4 · input ·is")
    expect(other.get_by_role("textbox", name="One of 15 prompts")).to_have_value(
        "japan-capital-0: The capital of Japan is"
    )


def test_a_prompt_of_its_own_leaves_the_set(opened: Opened, tmp_path: Path) -> None:
    page = opened("sets/")
    upload(page, tmp_path / "two.txt", b"The city of\n<img src=x onerror=alert(1)>\n")
    expect(page.locator("#preview")).to_contain_text("two.txt: 2 prompts:")
    expect(page.locator("#preview")).to_contain_text("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Run as a job").click()
    page.get_by_role("link", name="See its log").click()
    page.locator("tbody tr").filter(has_text="two.txt").first.get_by_role("link").click()
    page.get_by_role("textbox", name="One of 2 prompts").click()
    page.get_by_role("option", name="1: <img src=x onerror=alert(1)>").click()
    expect(page.locator("#detail-heading")).to_contain_text("input >")
    assert page.locator("main img, header img, aside img").count() == 0
    page.get_by_label("Prompt", exact=True).fill("The Colosseum is located in the city of")
    expect(page.locator("#stale")).to_contain_text("Press Run")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#detail-heading")).to_contain_text("input ·of")
    expect(page.locator("#chooser-row")).to_be_hidden()


def test_a_file_that_cannot_be_used_gets_the_librarys_line(opened: Opened, tmp_path: Path) -> None:
    page = opened("sets/")
    said = page.get_by_role("alert")
    upload(page, tmp_path / "two.txt", b"The city of\n")
    expect(page.locator("#preview")).to_contain_text("two.txt: 1 prompt:")
    for name, content, says in (
        ("bad.jsonl", b'{"text": "fine"}\n{"text": 3}\n', "bad.jsonl, line 2: no text"),
        ("page.html", b"<b>", "unknown kind of prompt file page.html"),
        ("empty.txt", b"\n", "empty.txt holds no prompts"),
        ("huge.txt", b"x" * (20 * 2**20 + 1), "huge.txt has 20,971,521 bytes: expected at most"),
    ):
        upload(page, tmp_path / name, content)
        expect(said).to_contain_text(says)
        expect(page.get_by_role("button", name="Run as a job")).to_be_disabled()


def test_a_set_that_was_uploaded_is_offered_where_a_setting_names_prompts(
    opened: Opened, tmp_path: Path
) -> None:
    page = opened("sets/")
    lines = [f"The river number {n} flows past {n * n} hills and into the sea." for n in range(90)]
    upload(page, tmp_path / "rivers.txt", "\n".join(lines).encode())
    expect(page.locator("#preview")).to_contain_text("rivers.txt: 90 prompts")
    other = opened("?tab=particles&particles.draws=1&particles.views=raw,centred")
    field = other.get_by_role("textbox", name="corpus")
    expect(field).to_be_visible()
    field.click()
    expect(other.get_by_role("option", name="facts")).to_be_visible()
    other.get_by_role("option", name="rivers.txt").click()
    expect(field).to_have_value("rivers.txt")
    other.get_by_role("button", name="Run Particles").click()
    expect(other).to_have_url(re.compile("particles.corpus=rivers.txt"))

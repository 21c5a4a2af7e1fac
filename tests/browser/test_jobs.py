"""Jobs as a person meets them: progress, cancelling, a worker that dies, and the Jobs page."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

from playwright.sync_api import Page, expect

from lenses import LogitLens
from tests.jobs.gates import Gates
from workbench.instrument import find
from workbench.jobs import Desk, Request

Opened = Callable[..., Page]


def waiting(opened: Opened, gates: Gates) -> Page:
    """A page on which the toy has begun a batch, and waits at the gates."""
    page = opened(f"?tab=swing&swing.folder={gates.folder}")
    expect(page.locator("#detail-heading")).to_contain_text("layer 6")
    page.get_by_role("button", name="Run Swing").click()
    gates.wait_for_batch()
    return page


def test_a_long_measurement_says_how_far_it_is_and_can_be_cancelled(
    opened: Opened, gates: Gates
) -> None:
    page = waiting(opened, gates)
    row = page.locator("#progress")
    expect(row).to_contain_text("Measuring, 0 of 12 tokens")
    expect(page.locator("#progress-spoken")).to_have_text("Measuring")
    expect(page.locator("#run-button")).to_be_disabled()
    expect(page.get_by_role("link", name="Jobs (1)")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_have_text("Cancelled: nothing was measured.")
    expect(row).to_be_hidden()
    expect(page.locator("#run-button")).to_be_enabled()
    expect(page.locator("#detail-heading")).to_contain_text("layer 6")


def test_a_killed_worker_is_said_and_the_job_can_be_tried_again(
    opened: Opened, gates: Gates, desk: Desk
) -> None:
    page = waiting(opened, gates)
    (worker,) = desk.workers()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    expect(page.get_by_role("alert")).to_contain_text("was killed (SIGKILL, signal 9)")
    page.get_by_role("button", name="Retry").click()
    gates.wait_for_batch()
    gates.open(1)
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page).to_have_url(re.compile("with=swing"))


def test_the_jobs_page_lists_cancels_and_tries_again(
    opened: Opened, gates: Gates, desk: Desk
) -> None:
    swing = find("swing")(folder=gates.folder)  # type: ignore[call-arg]
    texts = ["The city of", "The river", "<img src=x onerror=alert(1)>"]
    first = desk.submit(Request("atlas", texts, [swing], title="Ten <b>prompts", batch_size=1))
    gates.wait_for_batch()
    page = opened("jobs/")
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("Ten <b>prompts")
    expect(page.get_by_text("busy")).to_be_visible()
    row.get_by_role("button").first.focus()
    gates.open(1)
    gates.wait_for_batch()
    expect(row).to_contain_text("19 of 24 tokens")
    expect(row.get_by_role("button").first).to_be_focused()
    page.get_by_role("button", name=f"Cancel job {first}").click()
    expect(row).to_contain_text("cancelled")
    page.get_by_role("button", name=f"Retry job {first}").click()
    gates.open(3)
    expect(row).to_contain_text("done")
    row.get_by_role("button").first.click()
    expect(page.locator("#job-detail")).to_contain_text(f"Job {first + 1}: done")
    row.get_by_role("link", name="Open the result").click()
    expect(page.locator("#detail-heading")).to_contain_text("position 2")


def test_a_failed_job_shows_its_line_and_its_log(opened: Opened, desk: Desk) -> None:
    desk.submit(Request("broken", "The city of", [LogitLens()], title="Hopeless"))
    page = opened("jobs/")
    expect(page.locator("tbody tr").first).to_contain_text("config.json")
    page.get_by_role("button", name="Hopeless").click()
    expect(page.locator("#job-detail h2")).to_contain_text("failed")
    expect(page.locator("#job-detail")).to_contain_text("config.json")


def test_finished_jobs_can_be_cleared(opened: Opened, desk: Desk) -> None:
    desk.wait(desk.submit(Request("atlas", "The city of", [LogitLens()], title="Forgettable")))
    page = opened("jobs/")
    expect(page.get_by_role("button", name="Forgettable")).to_be_visible()
    page.get_by_role("button", name="Clear finished jobs").click()
    expect(page.get_by_text("No jobs yet. Press Run on the Inspector")).to_be_visible()
    assert desk.jobs() == []

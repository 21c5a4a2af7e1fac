"""Settings of every test, and the one browser of a test run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

SWITCHES = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --process-per-site"
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Models here are tiny, and a test machine's cores are shared: threads that wait for each other lose.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # None stands for the one that Playwright installed.
        path = next(filter(None, map(shutil.which, NAMES)), None)
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES.split())
        yield browser
        browser.close()

"""A real browser on a real server with the bundled model; every page is watched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)
from transformers import GPT2Config, GPT2LMHeadModel

import workbench as wb
from app.server import create_app, listen

SWITCHES = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LAYOUT_LIMIT, CALLBACK_LIMIT = 100_000, 300_000  # bytes

PICTURES = Path("test-artefacts")

expect.set_options(timeout=20_000)


def deep() -> wb.Model:
    """Thirty random blocks, so that not every layer has a row."""
    torch.manual_seed(0)
    atlas = wb.load()
    size = GPT2Config(
        vocab_size=len(atlas.tokenizer), n_layer=30, n_embd=16, n_head=2, n_positions=128
    )
    return wb.load(GPT2LMHeadModel(size).eval(), atlas.tokenizer)


def broken() -> wb.Model:
    raise RuntimeError("nobody expected this")


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    server = listen(create_app({"atlas": wb.load, "deep": deep, "broken": broken}), port=0)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # None stands for the one that Playwright installed.
        path = next(filter(None, map(shutil.which, NAMES)), None)
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES.split())
        yield browser
        browser.close()


@dataclass
class Watch:
    """What went wrong on a page, as one line each."""

    faults: list[str] = field(default_factory=list)

    def on(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)
        page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and url.hostname != "127.0.0.1":
            self.faults.append(f"request to {request.url}")

    def _response(self, response: Response) -> None:
        size = int(response.headers.get("content-length", 0))
        limits = {"_dash-layout": LAYOUT_LIMIT, "_dash-update-component": CALLBACK_LIMIT}
        limit = limits.get(urlsplit(response.url).path.lstrip("/"), size)
        if "download.data" in (response.request.post_data or ""):
            limit = size
        if size > limit or response.status >= 400:
            self.faults.append(f"{response.status}, {size} bytes: {response.url}")


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in found]


@pytest.fixture
def opened(
    browser: Browser, address: str, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Page]]:
    """Opens pages by their query string, ready to be read; checks all of them at the end."""
    watch, pages = Watch(), []

    def page_of(query: str = "") -> Page:
        size = {"width": 1500, "height": 900}
        context = browser.new_context(
            viewport=size, permissions=["clipboard-read", "clipboard-write"]
        )
        context.set_default_timeout(20_000)
        page = context.new_page()
        pages.append(page)
        watch.on(page)
        page.goto(address + query)
        expect(page.locator("#run-button")).to_be_enabled()
        return page

    yield page_of
    for number, page in enumerate(pages):
        page.screenshot(path=PICTURES / f"{request.node.name}_{number}.png")
        assert "Share chart" not in page.content()
        assert violations(page) == []
        page.context.close()
    assert watch.faults == []


@pytest.fixture
def page(opened: Callable[..., Page]) -> Page:
    page = opened()
    expect(page.locator("#detail-heading")).to_contain_text("layer 6")
    return page

"""A real browser on a real server with the bundled model; every page is watched."""

from __future__ import annotations

import re
import sys
import time
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
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
)
from transformers import GPT2Config, GPT2LMHeadModel

import workbench as wb
from app.server import create_app, listen
from tests.browser.views import stands
from tests.jobs.gates import Gates
from workbench.jobs import Desk, ModelSpec

# Bytes; the layout holds a form of each instrument, some 4,000 each.
LAYOUT_LIMIT, CALLBACK_LIMIT = 110_000, 300_000

PICTURES = Path("test-artefacts")
TOYS = Path(__file__).parent / "toys"

expect.set_options(timeout=60_000)


def deep(folder: Path) -> ModelSpec:
    """Thirty random blocks, so that not every layer has a row."""
    torch.manual_seed(0)
    tokenizer = wb.load().tokenizer
    size = GPT2Config(vocab_size=len(tokenizer), n_layer=30, n_embd=16, n_head=2, n_positions=288)
    GPT2LMHeadModel(size).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelSpec(str(folder))


@dataclass
class Site:
    """A server over a desk, which can be stopped and opened again on the same home."""

    home: Path
    models: dict[str, ModelSpec]

    def open(self) -> None:
        self.desk = Desk(
            self.home, self.models, devices=["cpu"], preload="atlas", threads=1, grace=0.2
        )
        self.desk.start()
        self.server = listen(create_app(self.desk), port=0)
        self.address = f"http://127.0.0.1:{self.server.port}/"
        self.thread = Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.desk.stop()


def started(desk: Desk) -> None:
    """Wait for the worker: other tests use the cores too, and a page waits for 60 s at most."""
    until = time.monotonic() + 120
    while any(worker.state == "starting" for worker in desk.workers()):
        assert time.monotonic() < until, "the worker has not started"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    return {
        "atlas": ModelSpec("atlas"),
        "deep": deep(tmp_path_factory.mktemp("deep")),
        "broken": ModelSpec(str(tmp_path_factory.mktemp("broken"))),
    }


@pytest.fixture(scope="session")
def site(models: dict[str, ModelSpec], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server of all tests that do not stop it; the toys are installed for it."""
    sys.path.insert(0, str(TOYS))
    site = Site(tmp_path_factory.mktemp("home"), models)
    site.open()
    started(site.desk)
    yield site
    site.close()
    sys.path.remove(str(TOYS))


@pytest.fixture(scope="session")
def address(site: Site) -> str:
    return site.address


@pytest.fixture
def gates(tmp_path: Path, desk: Desk) -> Iterator[Gates]:
    """Pipes that the toy "swing" waits at, where its setting "folder" names them."""
    gates = Gates(tmp_path)
    yield gates
    for job in desk.jobs():
        desk.cancel(job.id)  # what a failed test has left waiting
    gates.close()


@pytest.fixture
def desk(site: Site) -> Desk:
    return site.desk


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
        limit = limits.get(urlsplit(response.url).path.rpartition("/")[2], size)
        if "download.data" in (response.request.post_data or ""):
            limit = size
        if size > limit or response.status >= 400:
            self.faults.append(f"{response.status}, {size} bytes: {response.url}")


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in found]


@pytest.fixture(scope="session")
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """The browser profile of all flows: its cache stays, what a page has stored does not."""
    size = {"width": 1500, "height": 900}
    context = browser.new_context(viewport=size, permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(60_000)
    yield context
    context.close()


@pytest.fixture
def opened(
    profile: BrowserContext, address: str, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Page]]:
    """Opens pages by their query string, ready to be read; checks all of them at the end."""
    watch, pages = Watch(), []

    def page_of(query: str = "", at: str = address) -> Page:
        page = profile.new_page()
        pages.append(page)
        watch.on(page)
        page.goto(at + query)
        expect(page.get_by_role("heading", name="Workbench")).to_be_visible()
        return page

    yield page_of
    name = re.sub(r"\W+", "-", request.node.name)
    for number, page in enumerate(pages):
        page.screenshot(path=PICTURES / f"{name}_{number}.png")
        assert "Share chart" not in page.content()
        assert violations(page) == []
        page.evaluate("localStorage.clear(); sessionStorage.clear()")
        page.close()
    assert watch.faults == []


@pytest.fixture
def page(opened: Callable[..., Page]) -> Page:
    """The Inspector with the logit lens in front."""
    page = opened("?tab=logit_lens")
    expect(page.locator("#detail-heading")).to_contain_text("layer 6")
    stands(page, "lens-grid")
    return page

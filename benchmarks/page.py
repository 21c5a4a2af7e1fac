"""The app as a person meets it: seconds from a click to what it shows, and bytes on the way.

A real server (`workbench app`, its worker warm), a real browser, two random models of the sizes that
count: 13 states by 40 tokens, and 49 by 256. Times are taken inside the page, from the navigation or
the click to the first frame in which the thing is there.
"""

from __future__ import annotations

import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import torch
from playwright.sync_api import Browser, Page, Response, sync_playwright

import workbench as wb
from benchmarks.line import Line
from workbench.atlas import prompts_path

__all__ = ["run"]

SIZES = {"13 x 40": (12, 40, 2.0), "49 x 256": (48, 256, 3.0)}  # blocks, tokens, goal in seconds
SETTLING = 1000  # milliseconds before a click: nobody clicks while the page still comes
SWITCHES = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Says when a condition was first true, at the frame that drew it.
WATCH = """(name, condition) => {
    window.reached = {};
    const look = () => {
        if (!condition()) return requestAnimationFrame(look);
        window.reached[name] = (performance.now() - (window.clicked ?? 0)) / 1000;
    };
    look();
}"""
# Where on the screen the first panel's row of a layer is.
CELL = """layer => {
    const plot = document.querySelector('#layers-figure .js-plotly-plot');
    const { x, y } = plot.getBoundingClientRect();
    const { xaxis, yaxis } = plot._fullLayout;
    return [x + xaxis._offset + 6, y + yaxis._offset + yaxis.l2p(layer)];
}"""
DRAWN = (
    "document.querySelector('#layers-figure .heatmaplayer text') && "
    "/layer/.test(document.querySelector('#detail-heading')?.textContent)"
)
AT = "document.querySelector('#detail-heading').textContent.includes('layer {layer} ')"
# A short prompt's result may come before any progress is shown: the address then names it.
PROGRESS = "!document.querySelector('#progress').hidden || location.search !== window.before"


def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """Measure the page at both sizes."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        texts = {size: _model(root, blocks, tokens) for size, (blocks, tokens, _) in SIZES.items()}
        with _served(root, device) as address, _browser() as browser:
            for size, (blocks, _, goal) in SIZES.items():
                link = f"{address}?model=blocks-{blocks}&prompt={quote(texts[size])}"
                _visit(browser, link, blocks)  # loads the model, and fills the caches of the server
                visits = [_visit(browser, link, blocks) for _ in range(rounds)]
                yield from _lines(size, goal, visits)


def _model(root: Path, blocks: int, tokens: int) -> str:
    """Save a random model under `root`; returns a text of so many of its tokens."""
    import transformers

    atlas = wb.load()
    config = transformers.GPT2Config(
        vocab_size=len(atlas.tokenizer), n_layer=blocks, n_embd=64, n_head=4, n_positions=512
    )
    torch.manual_seed(0)
    folder = root / "models" / f"blocks-{blocks}"
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    atlas.tokenizer.save_pretrained(folder)
    facts = " ".join(prompt.text for prompt in wb.PromptSet.read(prompts_path("facts")))
    ids = atlas.tokenizer(facts)["input_ids"][:tokens]
    text: str = atlas.tokenizer.decode(ids)
    found = len(atlas.tokenizer(text)["input_ids"])
    if found != tokens:
        raise RuntimeError(f"the text has {found} tokens: expected {tokens}")
    return text


@contextmanager
def _served(root: Path, device: torch.device) -> Iterator[str]:
    command = [sys.executable, "-m", "app.cli", "app", "--no-browser", "--port", "0"]
    command += ["--home", str(root / "home"), "--model-root", str(root / "models")]
    command += ["--device", str(device)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        server.send_signal(signal.SIGINT)  # so that its worker ends with it
        server.wait()


@contextmanager
def _browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES.split())
        yield browser
        browser.close()


@dataclass
class _Visit:
    """One visit in a fresh browser profile: seconds by what was waited for, bytes by answer."""

    seconds: dict[str, float] = field(default_factory=dict)
    layout: int = 0
    callback: int = 0

    def weigh(self, response: Response) -> None:
        path = urlsplit(response.url).path
        size = int(response.headers.get("content-length", 0))
        if path.endswith("_dash-layout"):
            self.layout = size
        elif path.endswith("_dash-update-component"):
            self.callback = max(self.callback, size)


def _visit(browser: Browser, link: str, blocks: int) -> _Visit:
    visit = _Visit()
    context = browser.new_context(viewport={"width": 1500, "height": 900})
    page = context.new_page()
    page.on("response", visit.weigh)
    page.add_init_script(_watching("complete", DRAWN))
    page.goto(link)
    visit.seconds["complete"] = _reached(page, "complete")
    visit.seconds["first paint"] = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
    )
    visit.seconds["click to detail"] = _click(page, blocks // 2)
    visit.seconds["first progress or result"] = _progress(page)
    context.close()
    return visit


def _click(page: Page, layer: int) -> float:
    """Select another layer on the Layers tab."""
    page.wait_for_function("() => !document.querySelector('[data-dash-is-loading]')")
    page.wait_for_timeout(SETTLING)
    left, top = page.evaluate(CELL, layer)
    page.evaluate(_watching("detail", AT.format(layer=layer)))
    page.evaluate(
        "addEventListener('mousedown', () => window.clicked = performance.now(), "
        "{capture: true, once: true})"
    )
    page.mouse.click(left, top)
    return _reached(page, "detail")


def _progress(page: Page) -> float:
    """Run another prompt, which has not been measured before."""
    page.evaluate("window.clicked = undefined; window.before = location.search")
    page.locator("#prompt").fill(f"The city of {page.evaluate('Math.random()')}")
    page.evaluate(_watching("progress", PROGRESS))
    page.evaluate(
        "document.querySelector('#run-button').addEventListener('click', "
        "() => window.clicked = performance.now(), {capture: true, once: true})"
    )
    page.locator("#run-button").click()
    return _reached(page, "progress")


def _watching(name: str, condition: str) -> str:
    return f"({WATCH})('{name}', () => {condition})"


def _reached(page: Page, name: str) -> float:
    handle: Any = page.wait_for_function(f"() => window.reached?.{name}", timeout=60_000)
    return float(handle.json_value())


def _lines(size: str, goal: float, visits: list[_Visit]) -> Iterator[Line]:
    goals = {
        "first paint": 0.5,
        "complete": goal,
        "click to detail": 0.25,
        "first progress or result": 0.5,
    }
    for what, most in goals.items():
        times = [visit.seconds[what] for visit in visits]
        spread = f"{min(times):.3f} to {max(times):.3f} in {len(times)} visits"
        yield Line(f"page, {size}: {what}", statistics.median(times), most, spread, "s")
    layout, callback = (max(getattr(v, name) for v in visits) for name in ("layout", "callback"))
    yield Line(f"page, {size}: first layout as JSON", layout / 1e3, 100, "", "kB")
    yield Line(f"page, {size}: largest answer of a callback", callback / 1e3, 300, "", "kB")

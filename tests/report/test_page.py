"""The page in a real browser: offline, accessible, and unmoved by whatever the prompts contain."""

from __future__ import annotations

import csv
import io
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

import workbench as wb
from lenses import LogitLens
from tests.browser.conftest import violations
from tests.report.toys import BestNext, MeanState, Picky
from tests.tiny import model
from workbench.report import report

NASTY = [
    "<script>document.title = 'owned'</script>",
    "</script><img src=x onerror=fail()>",
    "<b>bold</b> & \"quoted\" 'text'",
    "new\nline\ttab",
    "{{ 7 * 7 }} {% raw %}",
    "שלום \u202eright to left",
]
PROMPTS = [
    wb.Prompt(f"{text} {n}"[:60], id=f"{text} {n}", target=chr(60 + n), group="<i>")
    for n, text in enumerate(NASTY * 2)
]
INSTRUMENTS = [LogitLens(sites=("resid_post", "mlp_out")), Picky("quoted"), MeanState(), BestNext()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "out"
    report(model("gpt2", torch.float32), PROMPTS, INSTRUMENTS, out, shard_size=5)
    return out


@pytest.fixture(scope="module")
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page from disk; fails on any request to a network and on any error in it."""
    faults: list[str] = []
    contexts: list[BrowserContext] = []

    def console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            faults.append(message.text)

    def request(made: Request) -> None:
        if urlsplit(made.url).scheme not in ("file", "data", "blob"):
            faults.append(made.url)

    def page_of(path: Path, look: str = "light") -> Page:
        contexts.append(browser.new_context(color_scheme=look))  # type: ignore[arg-type]
        page = contexts[-1].new_page()
        page.on("console", console)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", request)
        page.goto(path.as_uri())
        page.wait_for_function(
            "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))"
        )
        return page

    yield page_of
    for context in contexts:  # the browser's others belong to other tests
        context.close()
    assert faults == []


@pytest.fixture(scope="module")
def page(folder: Path, opened: Callable[..., Page]) -> Page:
    return opened(folder / "report.html")


@pytest.mark.parametrize("look", ["light", "dark"])
def test_the_page_is_drawn_without_a_network(
    folder: Path, opened: Callable[..., Page], look: str
) -> None:
    page = opened(folder / "report.html", look)
    assert page.locator(".plot:has(.main-svg)").count() == page.locator(".plot").count() == 8
    assert violations(page) == []
    assert "Share chart" not in page.locator("body").inner_html()
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("table").count() == page.locator("table > caption").count()


def test_texts_of_prompts_stay_texts(page: Page) -> None:
    assert page.title() == "GPT2LMHeadModel on prompts given in Python"
    assert page.locator("img").count() == 0
    assert page.get_by_text("<script>document.title").count() > 0
    assert page.get_by_text("</script><img src=x onerror=fail()>").count() > 0
    assert page.get_by_text("{{ 7 * 7 }}").count() > 0


def test_a_script_without_the_pages_nonce_is_not_run(
    folder: Path, browser: Browser, tmp_path: Path
) -> None:
    """Were a text to become markup after all, the page's own policy would stop it."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    spoilt = tmp_path / "spoilt.html"
    script = "<script>document.title = 'owned'</script><h1>"
    spoilt.write_text(text.replace("<h1>", script, 1), encoding="utf-8")
    refused: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: refused.append(message.text))
    page.goto(spoilt.as_uri())
    assert script in spoilt.read_text(encoding="utf-8")
    assert page.title() != "owned"
    assert any("Content Security Policy" in text for text in refused)
    page.close()


def test_a_bundle_beside_the_page(tmp_path: Path, opened: Callable[..., Page]) -> None:
    out = tmp_path / "out"
    report(model("gpt2", torch.float32), ["a", "b"], [LogitLens()], out, plotlyjs="directory")
    assert (out / "report.html").stat().st_size < 300_000 < (out / "plotly.min.js").stat().st_size
    assert opened(out / "report.html").locator(".plot .main-svg").count() > 0


def test_every_plot_links_to_the_numbers_it_draws(folder: Path, page: Page) -> None:
    links = page.locator("figure a[download]")
    assert links.count() == page.locator("figure").count()
    link = page.locator("figure", has=page.locator("[aria-label='How likely the target is']"))
    address = link.locator("a").get_attribute("href") or ""
    rows = list(csv.DictReader(io.StringIO(unquote(address.split(",", 1)[1]))))
    tidy = pd.read_parquet(sorted(folder.glob("shards/*/logit_lens.parquet")))
    last = tidy[tidy.position == tidy.groupby("prompt").position.transform("max")]
    means = last.groupby(["site", "layer"]).target_logprob.mean()
    assert len(rows) == len(means) == 7
    for row in rows:
        mean = means[row["site"], int(row["layer"])]
        assert float(row["value"]) == pytest.approx(mean)
    drawn = page.locator("[aria-label='How likely the target is']").evaluate(
        "plot => plot.data.filter(t => t.mode === 'lines+markers').flatMap(t => t.y)"
    )
    assert sorted(drawn) == pytest.approx(sorted(float(row["value"]) for row in rows))


def test_what_the_page_says(page: Page) -> None:
    text = page.locator("body").inner_text()
    weights = model("gpt2", torch.float32).provenance()["weights"]
    assert weights in text
    assert "sites=resid_post,mlp_out" in text
    assert "10 of 12 prompts measured without an error" in text
    assert "The first 2 of 2 errors" in text
    assert "nostalgebraist2020logitlens" in text
    assert re.search(r"Top token is the target\s+[\d.]+%\s+[\d.]+% to [\d.]+%\s+12", text)


def test_the_lines_that_read_the_data_back_run(
    folder: Path, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "snippet.py").write_text(page.locator("code.read").inner_text())
    monkeypatch.chdir(folder)
    found = runpy.run_path(str(tmp_path / "snippet.py"))
    for instrument in INSTRUMENTS:
        assert found[instrument.name].collect().height > 0

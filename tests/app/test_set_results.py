"""Results of prompt sets: where they open, which sets there are, and what views make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from dash import html

import workbench as wb
from app import bench, jobs_table, uploads
from app.instruments import configured, kinds
from app.summaries import generic, sparse_probe, view_of
from workbench.atlas import prompts_path
from workbench.jobs import Desk, Job, Request

FACTS = wb.PromptSet.read(prompts_path("classics"))


@pytest.fixture(scope="module")
def done(desk: Desk) -> Job:
    """A set with one instrument of each shape that a summary can have."""
    chosen = [configured(name, {}) for name in ("logit_lens", "neurons")]
    return desk.wait(desk.submit(Request("atlas", FACTS, chosen)))


def texts(part: Any) -> str:
    """All that a component says."""
    if isinstance(part, list | tuple):
        return " ".join(map(texts, part))
    if part is None or isinstance(part, str | int | float):
        return str(part or "")
    return texts(getattr(part, "children", None))


def figures(part: Any) -> list[Any]:
    if isinstance(part, list | tuple):
        return [found for one in part for found in figures(one)]
    own = getattr(part, "figure", None)
    below = figures(getattr(part, "children", None)) if hasattr(part, "children") else []
    return ([] if own is None else [own]) + below


@pytest.mark.parametrize("name", ["logit_lens", "neurons"])
def test_any_instrument_is_summed_up(desk: Desk, done: Job, name: str) -> None:
    """By its report section; the figure of a menu is the one that is shown."""
    key = done.results[name]
    result = desk.result(key)
    shown = view_of(name).layout(key, result, "dark")
    drawn = figures(shown)
    assert drawn
    first = generic.WHOLE if name == "neurons" else "0"
    assert view_of(name).figure(result, first, "dark", {}).to_json() == drawn[0].to_json()
    if name == "logit_lens":
        assert "Settling layer of the top token" in texts(shown)
        with pytest.raises(wb.ResultError, match="has no figure 99"):
            view_of(name).figure(result, "99", "light", {})


def test_what_would_take_long_is_said(
    desk: Desk, done: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generic, "MOST", 10)
    shown = generic.layout("", desk.result(done.results["logit_lens"]), "light")
    assert "too many to average here" in texts(shown)


def test_results_open_where_they_can_be_seen(done: Job) -> None:
    """A set-level instrument alone has nothing to show in the Inspector."""

    def link(job: Job) -> str:
        cells = jobs_table.table([job], None).children[1].children[0].children
        (found,) = [c.children for c in cells if isinstance(c.children, html.A)]
        return str(found.href)

    probed = replace(done, results={"sparse_probe": "0" * 64})
    assert link(done) == f"/?job={done.id}"
    assert link(probed) == f"/sets/?job={done.id}"
    assert kinds()["sparse_probe"].needs_set


@pytest.mark.parametrize(("text", "number"), [("12", 12), ("../../x", 0), ("9" * 99, 0), ("²", 0)])
def test_strange_numbers_are_no_jobs(text: str, number: int) -> None:
    assert bench.whole(text) == number


def test_sets_that_are_offered_can_be_read() -> None:
    for group in uploads.offered():
        items: Any = group["items"]
        for item in items:
            name = item if isinstance(item, str) else item["value"]
            assert len(uploads.bundled(name)) > 0
    with pytest.raises(wb.PromptError, match="no bundled set"):
        uploads.bundled("../facts")
    with pytest.raises(wb.PromptError, match="expected made: and one of atlas_facts"):
        uploads.bundled("made:../x")


def test_pasted_lines() -> None:
    assert [p.text for p in uploads.pasted("one\n\ntwo\n")] == ["one", "two"]
    assert uploads.pasted(' {"text": "one", "target": " a"}')[0].target == " a"
    for text, says in {
        "": "pasted lines holds no prompts",
        "{": "pasted lines, line 1: not JSON",
    }.items():
        with pytest.raises(wb.PromptError, match=says):
            uploads.pasted(text)
    with pytest.raises(wb.PromptError, match="expected at most"):
        uploads.pasted("x" * (uploads.LARGEST + 1))


def test_a_probes_view_begins_with_the_feature_that_one_unit_tells_best() -> None:
    import xarray as xr

    f1 = xr.DataArray([[[0.7], [0.75]], [[0.6], [0.5]]], dims=("feature", "layer", "k"))
    data = xr.Dataset(
        {"validation_f1": f1, "all_positive": ("feature", [0.74, 0.2])},
        {"feature": ["common", "rare"], "layer": [1, 2]},
    )
    assert sparse_probe._best_feature(data) == "rare"
    assert sparse_probe._best_layer(data, "rare") == "1"

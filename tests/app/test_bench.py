"""From what is asked to runs, and from links and jobs to pages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import workbench as wb
from app.bench import Bench
from app.instruments import configured, defaults, together
from app.link import Link
from app.measuring import Page, add, aimed, follow, measure, move, open_link
from app.state import Asked, Pending, Run, Selection
from lenses import LogitLens
from workbench.jobs import Desk, Request

ASKED = Asked("atlas", "The Eiffel Tower is located in the city of", " Paris")


@pytest.fixture
def bench(desk: Desk) -> Bench:
    return Bench(desk)


def ended(bench: Bench, page: Page) -> Page:
    """The page once its job has ended."""
    assert page.job is not None
    while page.job.going:
        page = follow(bench, page.job, bench.desk.job(page.job.job), page)
        assert page.job is not None
    return page


def run_of(page: Page) -> tuple[Run, Selection]:
    assert page.run is not None
    assert page.selection is not None
    return page.run, page.selection


def test_a_run_holds_what_a_direct_measurement_gives(bench: Bench) -> None:
    run, at = run_of(ended(bench, measure(bench, Page(), ASKED, {}, [])))
    assert (run.layers, run.positions) == (6, 12)
    assert at == Selection(0, 6, 11, "resid_post")
    result = bench.result(run, "logit_lens")
    assert result is not None
    lens = LogitLens(top_k=10, sites=("resid_post", "attn_out", "mlp_out"))
    direct = lens(wb.load(), ASKED.prompt()).data
    np.testing.assert_array_equal(result.data["top_id"], direct["top_id"])
    assert run.weights == result.provenance["model"]["weights"][:8]
    assert bench.result(run, "swing") is None


def test_a_second_prompt_keeps_the_component_and_a_second_run_the_cell(bench: Bench) -> None:
    page = ended(bench, measure(bench, Page(), ASKED, {}, []))
    page = replace(page, selection=Selection(0, 2, 5, "mlp_out"))
    again = replace(ASKED, target=" Rome")
    page = ended(bench, measure(bench, page, again, {}, []))
    assert page.selection == Selection(0, 2, 5, "mlp_out")
    other = ended(bench, measure(bench, page, Asked("atlas", "The river"), {}, []))
    assert other.selection == Selection(0, 6, 1, "mlp_out")


def test_another_subject_is_another_prompt(bench: Bench) -> None:
    page = ended(bench, measure(bench, Page(), ASKED, {}, []))
    settings = {"causal_trace": {"samples": "1", "sites": "resid_post,", "layers": "2,"}}
    refused = ended(bench, add(bench, page, "causal_trace", settings))
    assert "has no subject" in run_of(refused)[0].refused["causal_trace"]
    aim = {"text": ASKED.text, "subject": "4:16", "corrupted": ""}
    page = replace(page, selection=Selection(0, 2, 5, "resid_post"))
    page = ended(bench, add(bench, page, "causal_trace", settings, [], aim))
    run, at = run_of(page)
    assert {"logit_lens", "causal_trace"} <= set(run.results)
    assert run.asked == replace(ASKED, subject="4:16")
    assert at == Selection(0, 2, 5, "resid_post")
    result = bench.result(run, "causal_trace")
    assert result is not None
    assert result.data["role"].values.tolist() == [0, 1, 2, 2, 2, 3, 4, 5, 5, 5, 5, 6]
    again = add(bench, page, "causal_trace", settings, [], aim)
    assert again.job is not None
    assert again.job.adds  # the same prompt now
    other = {"text": "another text", "subject": "0:1", "corrupted": "x"}
    assert aimed(ASKED, other) == aimed(ASKED, None) == ASKED
    of_set = replace(ASKED, prompts="abc")
    assert aimed(of_set, aim) == of_set


def test_a_link_selects_the_nearest_cell_and_says_of_other_weights(bench: Bench) -> None:
    place = {"layer": 0, "position": 99, "site": "mlp_out"}
    link = Link(replace(ASKED, model=""), place, weights="00000000")
    page = ended(bench, open_link(bench, link, ASKED))
    assert page.selection == Selection(0, 1, 11, "mlp_out")
    assert "other weights of atlas (00000000, here" in page.alert.children


def test_a_component_that_was_not_read_is_not_selected(bench: Bench) -> None:
    page = ended(bench, open_link(bench, Link(ASKED, {"site": "soul", "layer": 0}), ASKED))
    assert page.selection == Selection(0, 0, 11, "resid_post")


def test_a_refused_model_or_prompt_is_one_line(bench: Bench) -> None:
    with pytest.raises(wb.ModelError, match="no model '../../x' here: expected one of atlas"):
        measure(bench, Page(), Asked("../../x", "The city"), {}, [])
    with pytest.raises(wb.PromptError, match="empty prompt"):
        measure(bench, Page(), Asked("atlas", ""), {}, [])
    with pytest.raises(wb.SettingError, match="has no setting 'topk'"):
        measure(bench, Page(), ASKED, {"logit_lens": {"topk": "3"}}, [])
    page = ended(bench, measure(bench, Page(), replace(ASKED, target=" Paris and"), {}, []))
    assert page.run is None
    assert "is 2 tokens" in page.alert.children


def test_adding_needs_a_run(bench: Bench) -> None:
    with pytest.raises(wb.SettingError, match="press Run first"):
        add(bench, Page(), "logit_lens", {})


def test_an_added_result_joins_the_run_it_was_asked_for(bench: Bench) -> None:
    page = ended(bench, measure(bench, Page(), ASKED, {}, []))
    settings = {"logit_lens": {"top_k": "3"}}
    run, _ = run_of(ended(bench, add(bench, page, "logit_lens", settings)))
    result = bench.result(run, "logit_lens")
    assert result is not None
    assert result.data.sizes["k"] == 3
    assert run.settings == settings
    assert "logit_lens.top_k=3" in run.link


def test_an_added_result_of_another_prompt_does_not_join(bench: Bench) -> None:
    page = ended(bench, measure(bench, Page(), ASKED, {}, []))
    run, _ = run_of(page)
    job = bench.desk.job(bench.ask(Asked("atlas", "The river"), ["logit_lens"], {}).id)
    bench.desk.wait(job.id)
    pending = Pending(job.id, Asked("atlas", "The river"), {}, {}, adds=True)
    assert follow(bench, pending, bench.desk.job(job.id), page).run is run


def test_a_sets_job_opens_at_its_prompts(bench: Bench) -> None:
    prompts = wb.PromptSet.of([wb.Prompt("The city of", id="a"), wb.Prompt("The river", id="b")])
    job = bench.desk.submit(Request("atlas", prompts, [LogitLens(top_k=4)]))
    bench.desk.wait(job)
    page = ended(bench, open_link(bench, Link(job=job), ASKED))
    run, at = run_of(page)
    assert (run.asked.text, run.positions, at.prompt) == ("The city of", 3, "a")
    assert run.settings["logit_lens"]["top_k"] == "4"
    moved, there = run_of(move(bench, page, "b"))
    assert (moved.asked.text, moved.positions, there.prompt) == ("The river", 2, "b")
    assert moved.results == run.results


def test_a_job_without_results_is_said(bench: Bench) -> None:
    job = bench.desk.submit(Request("absent", "The city of", [LogitLens()]))
    page = ended(bench, open_link(bench, Link(job=job), ASKED))
    assert page.run is None
    assert "/no/such/folder" in page.alert.children


def test_the_pages_own_settings_are_its_defaults() -> None:
    assert defaults("logit_lens")["top_k"] == "10"
    assert configured("logit_lens", {"top_k": "3"}).settings()["top_k"] == 3
    assert together(["logit_lens"])[0] == "logit_lens"


def test_an_instrument_that_lacks_a_setting_waits_in_its_own_tab(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.instruments.required", lambda kind: [] if kind is LogitLens else ["k"])
    assert together([]) == ["logit_lens"]

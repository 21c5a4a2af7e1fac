"""Settings that name prompt files: a page names sets, never files, and links say the names."""

from __future__ import annotations

from pathlib import Path

import pytest

import workbench as wb
from app.bench import Bench
from app.instruments import kinds
from app.link import Link
from app.measuring import Page, measure, open_link
from app.offered_prompts import OfferedPrompts
from app.panels.own_run import made_with
from probes import Particles
from tests.app.test_bench import ASKED, ended, run_of
from workbench.atlas import PROMPTS, prompts_path
from workbench.jobs import Desk, Request

LINES = [f"The river number {n} flows past {n * n} hills and into the sea." for n in range(90)]
ONE = {"views": "raw,centred", "expensive": "false"}


@pytest.fixture
def bench(desk: Desk) -> Bench:
    return Bench(desk)


def test_every_setting_that_names_a_prompt_file_is_offered_sets() -> None:
    named = {name: kind.prompt_files for name, kind in kinds().items() if kind.prompt_files}
    assert named == {
        "ablate": ("reference",),
        "particles": ("corpus",),
        "spins": ("corpus",),
        "token_geometry": ("corpus",),
    }
    assert all(set(kind.prompt_files) <= set(kind.files) for kind in kinds().values())


def test_an_uploaded_set_is_measured_with_by_its_name(bench: Bench) -> None:
    identifier = bench.desk.keep(wb.PromptSet.of(LINES), "rivers, all.txt")
    assert bench.sets.names[: len(PROMPTS) + 1] == [*PROMPTS, "rivers, all.txt"]
    asked = {"particles": {**ONE, "corpus": "rivers, all.txt"}}
    run, _ = run_of(ended(bench, measure(bench, Page(), ASKED, asked, [], ["particles"])))
    result = bench.result(run, "particles")
    assert result is not None
    file = bench.desk.home.prompts / identifier / "rivers-all.jsonl"
    assert result.provenance["settings"]["corpus"] == str(file)
    assert wb.PromptSet.read(file).prompts == wb.PromptSet.of(LINES).prompts
    direct = Particles(corpus=str(file), views=["raw", "centred"], expensive=False)
    own = direct(wb.load(), ASKED.prompt()).data
    assert result.data["mean_cosine"].values == pytest.approx(own["mean_cosine"].values, abs=1e-5)
    assert "particles.corpus=rivers%2C+all.txt" in run.link
    assert identifier not in run.link
    job = bench.desk.jobs()[0]
    assert bench.settings(job)["particles"]["corpus"] == "rivers, all.txt"
    link = Link(ASKED, settings=asked, beside=("particles",))
    again, _ = run_of(ended(bench, open_link(bench, link, ASKED)))
    assert again.results == run.results


def test_a_bundled_set_is_offered_by_its_name(bench: Bench) -> None:
    opened = bench.sets.opened("ablate", {"reference": "facts"})
    assert opened == {"reference": str(prompts_path("facts"))}
    assert bench.sets.closed("ablate", opened) == {"reference": "facts"}
    assert bench.files.opened("ablate", opened) == opened


@pytest.mark.parametrize("name", ["/etc/passwd", "../two.txt", "{facts}", "none.txt", "mine#0"])
def test_a_link_opens_no_file(bench: Bench, name: str) -> None:
    before = len(bench.desk.jobs())
    settings = {"particles": {"corpus": name.format(facts=prompts_path("facts"))}}
    link = Link(ASKED, settings=settings, beside=("particles",))
    with pytest.raises(wb.SettingError, match="is offered here: expected one of facts, classics"):
        open_link(bench, link, ASKED)
    assert len(bench.desk.jobs()) == before


def test_the_latest_of_a_name_is_meant_and_a_few_are_listed(bench: Bench) -> None:
    first = bench.desk.keep(wb.PromptSet.of(["one"]), "twice.txt")
    second = bench.desk.keep(wb.PromptSet.of(["two"]), "twice.txt")
    opened = bench.sets.opened("particles", {"corpus": "twice.txt"})
    assert opened["corpus"].endswith(f"{second}/twice.jsonl")
    bench.desk.keep(wb.PromptSet.of(["two"]), "also two.txt")
    assert bench.sets.closed("particles", opened) == {"corpus": "twice.txt"}
    assert bench.desk.prompts(first) is not None
    for number in range(60):
        bench.desk.keep(wb.PromptSet.of(["one"]), f"{number}.txt")
    assert len(OfferedPrompts(bench.desk).names) == len(PROMPTS) + 50
    with pytest.raises(wb.SettingError, match=r"59\.txt.* and 43 more; a set that is"):
        bench.sets.opened("particles", {"corpus": "0.txt?"})


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", "a\0b.txt", "é.csv", "x" * 300])
def test_a_name_never_leads_out_of_the_home(bench: Bench, name: str) -> None:
    identifier = bench.desk.keep(wb.PromptSet.of(["one"]), name)
    file = bench.desk.prompt_file(name)
    assert file.resolve().parent == bench.desk.home.prompts.resolve() / identifier
    assert bench.sets.closed("particles", {"corpus": str(file)}) == {"corpus": name}


def test_a_job_of_another_program_shows_its_corpus_without_a_path(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    particles = Particles(corpus=str(path), views=["centred"], expensive=False)
    job = bench.desk.wait(bench.desk.submit(Request("atlas", "Rome is in", [particles])))
    assert bench.settings(job)["particles"]["corpus"] == "mine.txt"
    said = made_with(bench, bench.desk.result(job.results["particles"]))
    assert "corpus mine.txt" in said
    assert str(tmp_path) not in said

"""A page names lenses, never files: what a link says is looked up, and never opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import workbench as wb
from app.bench import Bench
from app.link import Link
from app.measuring import Page, measure, open_link
from app.offered_files import OfferedFiles
from lenses import LogitLens
from tests.app.test_bench import ASKED, ended, run_of
from tests.lenses.fitted import tuned
from workbench.jobs import Desk, Request


@pytest.fixture
def lenses(tmp_path: Path) -> Path:
    root = tmp_path / "lenses"
    root.mkdir()
    tuned(wb.load()).save(root / "mine.safetensors")
    outside = tuned(wb.load(), seed=1).save(tmp_path / "outside.safetensors")
    (root / "leads-out.safetensors").symlink_to(outside)
    return root


def test_a_lens_is_measured_with_by_its_name_and_the_link_says_it(desk: Desk, lenses: Path) -> None:
    bench, asked = Bench(desk, OfferedFiles(lenses)), {"logit_lens": {"lens": "mine"}}
    run, _ = run_of(ended(bench, measure(bench, Page(), ASKED, asked, [])))
    result, digits = bench.result(run, "logit_lens"), tuned(wb.load()).hash
    assert result is not None
    assert result.provenance["settings"]["lens"].endswith(f"mine.safetensors#{digits}")
    assert result.data["site"].values.tolist() == ["resid_post"]
    assert "logit_lens.lens=mine" in run.link
    # a job's own settings name the file's hash as well, and no path
    job = desk.jobs()[0]
    own = bench.settings(job)["logit_lens"]["lens"]
    assert own == f"mine#{digits}"
    again = ended(
        bench, open_link(bench, Link(ASKED, settings={"logit_lens": {"lens": own}}), ASKED)
    )
    assert run_of(again)[0].results == run.results


@pytest.mark.parametrize(
    "name",
    [
        "{root}/mine.safetensors",
        "../outside",
        "leads-out",
        "tuned_lens:{root}/mine.safetensors#0123456789abcdef",
        "mine.safetensors",
        "/etc/passwd",
        "",
    ],
)
def test_a_link_opens_no_other_file(desk: Desk, lenses: Path, name: str) -> None:
    bench = Bench(desk, OfferedFiles(lenses))
    before = len(desk.jobs())
    settings = {"logit_lens": {"lens": name.format(root=lenses)}}
    with pytest.raises(wb.SettingError, match="is offered here: expected one of logit, mine"):
        open_link(bench, Link(replace(ASKED), settings=settings), ASKED)
    assert len(desk.jobs()) == before


def test_folders_of_saes_are_offered_by_their_names(lenses: Path) -> None:
    outside = lenses.parent / "elsewhere"
    for folder in (lenses / "dictionary", outside):
        folder.mkdir()
        (folder / "sae_weights.safetensors").touch()
    (lenses / "leads-out-too").symlink_to(outside)
    files = OfferedFiles(lenses)
    assert sorted(files.names) == ["dictionary", "mine"]
    opened = files.opened("sparse_probe", {"sae": "dictionary"})
    assert opened["sae"] == str(lenses / "dictionary")
    assert files.closed("sparse_probe", {"sae": f"{opened['sae']}#{'0' * 16},"}) == {
        "sae": f"dictionary#{'0' * 16}"
    }
    with pytest.raises(wb.SettingError, match="is offered here: expected one of dictionary, mine"):
        files.opened("sparse_probe", {"sae": "../elsewhere"})


def test_saved_probes_are_offered_to_what_goes_on_from_them(lenses: Path) -> None:
    (lenses / "tenses.nc").touch()
    opened = OfferedFiles(lenses).opened("steer", {"probe": "tenses"})
    assert opened["probe"] == str(lenses / "tenses.nc")


def test_a_missing_folder_offers_nothing(desk: Desk, tmp_path: Path) -> None:
    files = OfferedFiles(tmp_path / "none")
    assert files.names == {}
    assert files.opened("logit_lens", {"lens": "logit"}) == {"lens": "logit"}
    with pytest.raises(wb.SettingError, match="expected none, as the folder holds none; the page"):
        files.opened("steer", {"probe": "mine"})


def test_a_job_of_another_program_shows_its_lens_without_a_path(desk: Desk, lenses: Path) -> None:
    elsewhere = lenses.parent / "outside.safetensors"
    number = desk.submit(Request("atlas", "Rome is in", [LogitLens(lens=str(elsewhere))]))
    job = desk.wait(number)
    bench = Bench(desk, OfferedFiles(lenses))
    page = ended(bench, open_link(bench, Link(job=number), ASKED))
    run, _ = run_of(page)
    assert str(elsewhere.parent) not in run.link
    assert bench.settings(job)["logit_lens"]["lens"].startswith("outside#")

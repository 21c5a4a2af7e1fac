"""`workbench simulate` from a shell's point of view: rows, figures, one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import cli

SMALL = ["--set", "tokens=6", "--set", "d=6", "--set", "seeds=1", "--set", "time=2"]


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *words])


def test_a_phase_diagram_is_a_figure_and_rows(tmp_path: Path) -> None:
    page, table = tmp_path / "phase.html", tmp_path / "phase.csv"
    done = invoke("--phase", *SMALL, "--set", "betas=1,2", "--out", str(page), "--out", str(table))
    assert done.exit_code == 0, done.output
    words = page.read_text(encoding="utf-8")
    assert "theory: t*(beta)" in words
    assert "simulated" in words
    assert table.read_text().splitlines()[0].startswith("beta,seed,time,mean_cosine")


def test_rows_on_stdout_are_one_array() -> None:
    done = invoke("--json", *SMALL, "--set", "betas=1")
    rows = json.loads(done.stdout)
    assert len(rows) == 101
    assert rows[-1]["mean_cosine"] > rows[0]["mean_cosine"]
    plain = invoke("--staircase", *SMALL, "--set", "d=2")
    assert "Staircase: 6 tokens" in plain.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--phase", "--staircase"], "two experiments"),
        (["--set", "tokenz=3"], "has no setting 'tokenz'"),
        (["--set", "norm=mid"], "norm is 'mid': expected one of post, pre, peri"),
        (["--phase", "--set", "causal=true"], "has no setting 'causal'"),
        (["--out", "{tmp}/x.txt"], "expected a suffix"),
        (["--set", "temperature=0.1", "--set", "norm=pre"], "on the sphere"),
        (["--set", "device=nowhere"], "device 'nowhere' cannot be used here"),
        (["--set", "tokens=many"], "tokens is many"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words: list[str], said: str, tmp_path: Path) -> None:
    done = invoke(*[word.format(tmp=tmp_path) for word in words])
    assert done.exit_code == 2, done.output
    assert said in done.stderr.splitlines()[-1]

"""`workbench report` from a shell's point of view: exit codes, one line of JSON, interrupts."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from app.progress_line import ProgressLine

LINES = [{"text": f"The capital of France is {n}", "id": f"p{n}"} for n in range(6)]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write(tmp_path / "p.jsonl", LINES)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, args)])


def lens(prompts: Path, out: Path, *more: object) -> Result:
    return invoke(prompts, "--instruments", "logit_lens", "--out", out, "--shard-size", 2, *more)


def test_a_report_and_its_summary(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = lens(prompts, out, "--set", "logit_lens.top_k=1", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary == {
        "out": str(out),
        "prompts": 6,
        "failed": 0,
        "rejected": 0,
        "shards": 3,
        "left": 0,
        "interrupted": False,
        "page": str(out / "report.html"),
    }
    rows = pd.read_parquet(sorted(out.glob("shards/*/logit_lens.parquet")))
    assert {len(top) for top in rows.top} == {1}
    again = lens(prompts, out, "--set", "logit_lens.top_k=1")
    assert again.exit_code == 0
    assert f"read {out / 'report.html'}" in again.stdout


def test_errors_are_exit_code_1(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [*LINES, {"text": "long " * 400, "id": "long"}])
    done = lens(path, tmp_path / "out")
    assert done.exit_code == 1
    assert "1 of 7 prompts with an error: see errors.jsonl" in done.stdout
    (error,) = (tmp_path / "out" / "errors.jsonl").read_text().splitlines()
    assert json.loads(error)["prompt"] == "long"


def test_bad_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [*LINES, {"text": ""}])
    stopped = lens(path, tmp_path / "out")
    assert (stopped.exit_code, stopped.stdout) == (2, "")
    assert "line 7: empty prompt" in stopped.stderr
    assert not (tmp_path / "out").exists()
    done = lens(path, tmp_path / "out", "--skip-bad")
    assert done.exit_code == 0
    assert "1 bad lines left out: see rejected.jsonl" in done.stdout


def test_parts(prompts: Path, tmp_path: Path) -> None:
    first = lens(prompts, tmp_path / "out", "--shard", "2/2")
    assert first.exit_code == 0
    assert "2 shards are left to the other parts" in first.stdout
    assert lens(prompts, tmp_path / "out", "--shard", "1/2").exit_code == 0
    assert (tmp_path / "out" / "report.html").exists()


def test_the_first_interrupt_lets_the_shard_end(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at_each_call(monkeypatch, most=1)
    before = signal.getsignal(signal.SIGINT)
    done = lens(prompts, tmp_path / "out")
    assert done.exit_code == 1
    assert "stopping when this shard is done" in done.stderr
    assert "stopped, with 2 shards left: run the same command again" in done.stdout
    assert [path.name for path in (tmp_path / "out" / "shards").iterdir()] == ["000000000"]
    assert signal.getsignal(signal.SIGINT) == before
    monkeypatch.undo()
    assert lens(prompts, tmp_path / "out").exit_code == 0


def test_the_second_interrupt_stops_at_once(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at_each_call(monkeypatch, most=2)
    before = signal.getsignal(signal.SIGINT)
    done = lens(prompts, tmp_path / "out")
    assert done.exit_code == 1
    assert "stopped; the finished shards are kept" in done.stderr
    assert list((tmp_path / "out" / "shards").iterdir()) == []
    assert signal.getsignal(signal.SIGINT) == before


def interrupt_at_each_call(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """The first reports of progress each come with Ctrl-C."""
    calls: list[object] = []

    def interrupted(self: object, headway: object) -> None:
        calls.append(headway)
        if len(calls) <= most:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressLine, "__call__", interrupted)


def test_the_cost_is_said_beforehand(prompts: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [*LINES, {"text": "long " * 400}])
    done = lens(path, tmp_path / "out", "--plan", "--json")
    assert done.exit_code == 0, done.output
    cost = json.loads(done.stdout)
    assert (cost["prompts"], cost["shards"], cost["unfit"]) == (7, 4, 1)
    assert cost["batches"] == 3
    assert not (tmp_path / "out").exists()
    assert "6 prompts in 3 shards and 3 batches" in lens(prompts, tmp_path / "out", "--plan").stdout


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "top_k=1"], "expected instrument.name=value"),
        (["--set", "other.top_k=1"], "of logit_lens"),
        (["--set", "logit_lens.topk=1"], "has no setting 'topk'"),
        (["--shard", "1"], "expected i/n, such as 2/8"),
        (["--shard", "3/2"], "shard 3/2"),
        (["--plotlyjs", "cdn"], "expected inline or directory"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--model", "./none"], "no folder ./none"),
    ],
)
def test_bad_calls_are_one_line_and_exit_code_2(
    prompts: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    done = lens(prompts, tmp_path / "out", *more)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unknown_instruments_and_files(prompts: Path, tmp_path: Path) -> None:
    unknown = invoke(prompts, "--instruments", "tarot", "--out", tmp_path / "out")
    assert unknown.exit_code == 2
    assert "unknown instrument 'tarot'" in unknown.stderr
    missing = invoke("none.jsonl", "--instruments", "logit_lens", "--out", tmp_path / "out")
    assert missing.exit_code == 2
    assert "no prompt file none.jsonl" in missing.stderr

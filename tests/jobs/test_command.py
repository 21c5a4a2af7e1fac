"""`workbench jobs` from a shell's point of view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from lenses import LogitLens
from workbench.jobs import Desk, ModelSpec, Request


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli, ["jobs", *args])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk that is not started, so that its two jobs wait."""
    desk = Desk(tmp_path / "home", {"atlas": ModelSpec("atlas")}, devices=("cpu",))
    for title in ("first", "second"):
        desk.submit(Request("atlas", "Rome", [LogitLens()], title=title))
    yield desk
    desk.stop()


def test_jobs_are_listed_newest_first(desk: Desk) -> None:
    shown = invoke("--home", str(desk.home.root))
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert [(line[0], line[1], line[-1]) for line in lines[1:]] == [
        ("2", "queued", "second"),
        ("1", "queued", "first"),
    ]


def test_json_is_all_of_stdout(desk: Desk) -> None:
    rows = json.loads(invoke("--home", str(desk.home.root), "--json").stdout)
    assert [(row["id"], row["state"], row["model"]) for row in rows] == [
        (2, "queued", "atlas"),
        (1, "queued", "atlas"),
    ]


def test_one_is_cancelled(desk: Desk) -> None:
    shown = invoke("--home", str(desk.home.root), "--cancel", "1", "--json")
    assert [(row["id"], row["state"]) for row in json.loads(shown.stdout)] == [(1, "cancelled")]
    assert [job.state for job in desk.jobs()] == ["queued", "cancelled"]


def test_what_is_not_there_is_one_line(desk: Desk, tmp_path: Path) -> None:
    missing = invoke("--home", str(tmp_path / "nowhere"))
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert missing.stderr.startswith(f"error: no jobs in {tmp_path / 'nowhere'}")
    assert not (tmp_path / "nowhere").exists()
    unknown = invoke("--home", str(desk.home.root), "--cancel", "7")
    assert (unknown.exit_code, unknown.stderr) == (
        2,
        "error: no job 7 here: it was never queued, or has been cleared\n",
    )


def test_a_closed_home_is_shown_as_it_was_left(desk: Desk) -> None:
    desk.stop()
    rows = json.loads(invoke("--home", str(desk.home.root), "--json").stdout)
    assert {row["state"] for row in rows} == {"lost"}

"""What outlives what: desks on one home, workers without a desk, and workers that cannot start."""

from __future__ import annotations

import os
import select
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import workbench as wb
from lenses import LogitLens
from tests.jobs.gates import SECONDS, Gates
from workbench.jobs import Desk, ModelSpec, Request
from workbench.jobs import process as worker_process

ROOT = Path(__file__).parents[2]
ATLAS = {"atlas": ModelSpec("atlas")}
KILLED = """
import sys
from workbench.jobs import Desk, ModelSpec, Request
from workbench_toys import Gate

home, folder, tiny = sys.argv[1:]
desk = Desk(home, {"tiny": ModelSpec(tiny)}, devices=("cpu",))
desk.start()
desk.submit(Request("tiny", ["ab", "c"], [Gate(folder)], batch_size=1))
desk.submit(Request("tiny", "queued behind it", [Gate(folder)]))
sys.stdin.read()
"""


def new_desk(home: Path, **options: object) -> Desk:
    return Desk(home, ATLAS, devices=("cpu",), **options)  # type: ignore[arg-type]


def test_a_killed_desk_leaves_no_worker_and_its_jobs_are_lost(
    tmp_path: Path, gates: Gates, tiny_folder: str
) -> None:
    home = tmp_path / "home"
    parent = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(home), gates.folder, tiny_folder],
        stdin=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=ROOT,
    )
    with parent:
        gates.wait_for_batch()
        (worker,) = psutil.Process(parent.pid).children()
        watched = os.pidfd_open(worker.pid)
        parent.kill()
        ended = select.select([watched], [], [], SECONDS)[0]
        desk = new_desk(home)  # the parent is a zombie until it is waited for
    os.close(watched)
    assert ended, "the worker waits on, in a batch that never ends"
    assert [job.state for job in desk.jobs()] == ["lost", "lost"]
    assert desk.jobs()[0].error == "the workbench was stopped before this job ended: retry it"
    kept = desk.prompts(desk.jobs()[0].prompts)
    assert kept == wb.PromptSet.of("queued behind it")
    with pytest.raises(wb.ModelError, match="no model 'tiny' here"):
        desk.retry(desk.jobs()[0].id)
    desk.stop()


def test_prompts_survive_a_restart(tmp_path: Path) -> None:
    long = wb.PromptSet.of(["word " * 20_000, wb.Prompt("x", target=" y")])
    first = new_desk(tmp_path)
    identifier = first.keep(long)
    assert first.keep(long) == identifier
    assert first.keep(long.subset([0])) != identifier
    first.stop()
    second = new_desk(tmp_path)
    assert second.prompts(identifier) == long
    assert second.prompts("0" * 32) is None
    second.stop()


def test_two_desks_on_one_home_leave_each_other_alone(tmp_path: Path) -> None:
    first = new_desk(tmp_path)
    number = first.submit(Request("atlas", "Rome is in", [LogitLens()]))
    second = new_desk(tmp_path)
    own = second.submit(Request("atlas", "Paris is in", [LogitLens()]))
    assert [job.id for job in second.jobs()] == [own, number]
    second.stop()
    assert first.job(own).state == "lost"
    assert first.job(number).state == "queued"
    first.stop()
    assert first.job(number).state == "lost"


def test_stop_ends_the_worker_and_what_it_was_at(
    tmp_path: Path, gates: Gates, tiny_folder: str
) -> None:
    from workbench_toys import Gate

    desk = Desk(tmp_path / "home", {"tiny": ModelSpec(tiny_folder)}, devices=("cpu",))
    desk.start()
    number = desk.submit(Request("tiny", "abc", [Gate(gates.folder)]))
    gates.wait_for_batch()
    pid = desk.workers()[0].pid
    assert pid is not None
    desk.stop()
    assert not psutil.pid_exists(pid)
    assert [worker.state for worker in desk.workers()] == ["dead"]
    with pytest.raises(wb.WorkbenchError, match="the workbench was stopped before"):
        desk.wait(number)
    with pytest.raises(wb.SettingError, match="this desk is stopped: open another"):
        desk.retry(number)
    with pytest.raises(wb.SettingError, match="this desk is stopped: open another"):
        desk.start()


def test_a_desk_that_is_not_started_does_not_wait_for_ever(tmp_path: Path) -> None:
    desk = new_desk(tmp_path)
    number = desk.submit(Request("atlas", "Rome", [LogitLens()]))
    with pytest.raises(wb.SettingError, match=r"this desk is not started: call start\(\)"):
        desk.wait(number)
    desk.stop()


def test_a_worker_that_cannot_start_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with new_desk(tmp_path) as desk:
        number = desk.submit(Request("atlas", "Rome", [LogitLens()]))
        line = r"the worker of cpu cannot start: its process ended with exit code 1; see .*cpu\.log"
        with pytest.raises(wb.WorkbenchError, match=line):
            desk.wait(number)
        (worker,) = desk.workers()
        assert (worker.state, worker.pid) == ("dead", None)
        with pytest.raises(wb.WorkbenchError, match=line):
            desk.wait(desk.retry(number))


def test_models_go_to_the_device_with_the_fewest(tmp_path: Path) -> None:
    models = {
        "a": ModelSpec("atlas"),
        "b": ModelSpec("atlas", device="one"),
        "c": ModelSpec("atlas"),
        "d": ModelSpec("atlas"),
    }
    desk = Desk(tmp_path, models, devices=("one", "two"))
    placed = {name: spec.device for name, spec in desk.models.items()}
    assert placed == {"a": "two", "b": "one", "c": "one", "d": "two"}
    assert [worker.device for worker in desk.workers()] == ["two", "one"]
    desk.stop()


def test_a_desk_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(wb.SettingError, match="no models: expected at least one"):
        Desk(tmp_path, {})
    with pytest.raises(wb.SettingError, match="model 'a' is for 'cuda:7': expected one of cpu"):
        Desk(tmp_path, {"a": ModelSpec("atlas", device="cuda:7")}, devices=("cpu",))
    with pytest.raises(wb.ModelError, match="no model 'b' here"):
        Desk(tmp_path, {"a": ModelSpec("atlas")}, devices=("cpu",), preload="b")


def test_a_desk_whose_pid_another_process_has_now_is_dead(tmp_path: Path) -> None:
    desk = new_desk(tmp_path)
    number = desk.submit(Request("atlas", "Rome", [LogitLens()]))
    connection = sqlite3.connect(desk.home.database)
    with connection:
        connection.execute("UPDATE desks SET born = born - 3600")
    connection.close()
    other = new_desk(tmp_path)
    assert other.job(number).state == "lost"
    other.stop()
    desk.stop()

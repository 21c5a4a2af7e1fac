"""The shared file: who may take which job, and files that cannot be used."""

from __future__ import annotations

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import workbench as wb
from workbench.jobs.database import Database
from workbench.jobs.home import Home, default_home
from workbench.jobs.roster import Roster
from workbench.jobs.table import Table, Wanted
from workbench.jobs.texts import Texts


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "jobs.sqlite")


@pytest.fixture
def table(database: Database) -> Table:
    return Table(database)


def wanted(desk: str = "ours", device: str = "cpu", *, urgent: bool = False) -> Wanted:
    return Wanted("a title", "atlas", urgent, None, [], "0" * 32, 1, None, desk, device)


def test_urgent_jobs_come_first_then_the_oldest(table: Table) -> None:
    numbers = [table.add(wanted(urgent=urgent)) for urgent in (False, True, False, True)]
    taken = [table.claim("ours", "cpu") for _ in numbers]
    assert [job and job.id for job in taken] == [numbers[i] for i in (1, 3, 0, 2)]
    assert table.claim("ours", "cpu") is None


def test_only_urgent_jobs_where_only_those_are_asked_for(table: Table) -> None:
    table.add(wanted())
    assert table.claim("ours", "cpu", urgent=True) is None
    number = table.add(wanted(urgent=True))
    job = table.claim("ours", "cpu", urgent=True)
    assert job is not None
    assert (job.id, job.state, job.urgent) == (number, "running", True)


def test_a_worker_takes_the_jobs_of_its_desk_and_device(table: Table) -> None:
    table.add(wanted("theirs"))
    table.add(wanted(device="cuda"))
    assert table.claim("ours", "cpu") is None


def test_no_job_is_taken_twice(table: Table) -> None:
    numbers = [table.add(wanted()) for _ in range(40)]
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(lambda _: table.claim("ours", "cpu"), range(44)))
    found = [job.id for job in taken if job is not None]
    assert sorted(found) == numbers


def test_cancel_by_state(table: Table) -> None:
    queued, running, done = (table.add(wanted(urgent=urgent)) for urgent in (False, True, True))
    for _ in (running, done):
        table.claim("ours", "cpu")
    table.end(done, "done")
    for number in (queued, running, done):
        table.cancel(number)
    assert [table.job(n).state for n in (queued, running, done)] == ["cancelled", "running", "done"]
    assert table.cancelled(running)
    assert table.claim("ours", "cpu") is None


def test_a_job_that_was_lost_meanwhile_stays_lost(table: Table, database: Database) -> None:
    number = table.add(wanted())
    table.claim("ours", "cpu")
    assert not table.cancelled(number)
    Roster(database).lose("ours", "cpu", "the worker died")
    assert table.cancelled(number)
    table.end(number, "done", results={"logit_lens": "key"})
    job = table.job(number)
    assert (job.state, job.error, job.results) == ("lost", "the worker died", {})


def test_clear_forgets_what_is_finished_and_its_log(table: Table) -> None:
    done, queued = table.add(wanted()), table.add(wanted())
    table.claim("ours", "cpu")
    table.write_log(done, "a line")
    table.end(done, "done")
    assert [entry.line for entry in table.job(done).log] == ["a line"]
    table.clear()
    assert [job.id for job in table.latest(10)] == [queued]
    with pytest.raises(wb.SettingError, match=f"no job {done} here"):
        table.job(done)


def test_text_is_never_taken_for_sql(table: Table, database: Database) -> None:
    hostile = "'); DROP TABLE jobs; --"
    number = table.add(Wanted(hostile, hostile, False, None, [], hostile, 1, None, "ours", "cpu"))
    table.write_log(number, hostile)
    assert Texts(database).prompts(hostile) is None
    job = table.job(number)
    assert (job.title, job.log[0].line) == (hostile, hostile)


def test_named_prompts_are_listed_the_latest_first(database: Database) -> None:
    texts, one, two = Texts(database), wb.PromptSet.of(["one"]), wb.PromptSet.of(["two"])
    first, second = texts.keep(one, "a.txt"), texts.keep(two, "b.txt")
    assert texts.keep(one) == first
    assert list(texts.named().items()) == [("b.txt", second), ("a.txt", first)]
    texts.keep(two, "a.txt")
    assert list(texts.named().items()) == [("a.txt", second), ("b.txt", second)]


def test_an_older_workbenchs_file_is_brought_up_to_date(database: Database) -> None:
    kept = Texts(database).keep(wb.PromptSet.of(["one"]), "a.txt")
    with sqlite3.connect(database.path) as connection:
        connection.execute("DROP TABLE names")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    texts = Texts(Database(database.path))
    assert texts.named() == {}
    assert texts.prompts(kept) == wb.PromptSet.of(["one"])
    assert texts.keep(wb.PromptSet.of(["one"]), "a.txt") == kept
    assert texts.named() == {"a.txt": kept}


def test_a_newer_workbenchs_file_is_left_alone(tmp_path: Path, database: Database) -> None:
    with sqlite3.connect(database.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = database.path.read_bytes()
    with pytest.raises(wb.ResultError, match=r"newer workbench \(tables 99, here 2\): update"):
        Database(database.path)
    assert database.path.read_bytes() == before


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_text("something else, and long enough to be looked at " * 10)
    with pytest.raises(wb.ResultError, match="cannot be used as a table of jobs"):
        Database(path)


def test_a_home_is_private(tmp_path: Path) -> None:
    made = Home.made(tmp_path / "new" / "home")
    assert stat.S_IMODE(made.root.stat().st_mode) == 0o700


def test_in_a_folder_that_was_there_what_is_ours_is_private(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    home = Home.made(shared)
    Database(home.database)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (home.results, home.logs)}
    assert modes == {0o700}
    assert stat.S_IMODE(home.database.stat().st_mode) == 0o600


def test_a_home_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(wb.ResultError, match="cannot be a home for jobs"):
        Home.made(tmp_path / "file" / "home")


def test_the_default_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("WORKBENCH_HOME", raising=False)
    assert default_home() == tmp_path / "mechanistic-interpretability-workbench"
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "mine"))
    assert default_home() == tmp_path / "mine"

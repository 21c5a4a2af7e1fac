"""The table of jobs: what a desk writes into it, and what a worker does."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import SettingError
from workbench.jobs.database import Database
from workbench.jobs.job import FINISHED, Job, LogLine
from workbench.jobs.plain import canonical

__all__ = ["Table", "Wanted"]

COLUMNS = (
    "id, title, model, urgent, batch_size, instruments, prompts, n_prompts, retry_of, desk, device, "
    "state, phase, created, started, ended, done, total, seconds_left, error, results, refused"
)
ENDED = ", ".join(f"'{state}'" for state in FINISHED)


@dataclass(frozen=True)
class Wanted:
    """A job before it is queued; its attributes are those of `Job`."""

    title: str
    model: str
    urgent: bool
    batch_size: int | None
    instruments: Sequence[Mapping[str, Any]]
    prompts: str
    n_prompts: int
    retry_of: int | None
    desk: str
    device: str


@dataclass(frozen=True)
class Table:
    """The tables of jobs and of their log lines."""

    database: Database

    # --- the desk's side -------------------------------------------------------------------

    def add(self, wanted: Wanted) -> int:
        """Queue a job; its number."""
        row = vars(wanted) | {"instruments": canonical(wanted.instruments), "created": time.time()}
        columns, places = ", ".join(row), ", ".join(f":{name}" for name in row)
        with self.database.writing() as connection:
            inserted = connection.execute(
                f"INSERT INTO jobs (state, {columns}) VALUES ('queued', {places})", row
            )
            assert inserted.lastrowid is not None
            return inserted.lastrowid

    def job(self, number: int) -> Job:
        """The job as it is now, with its log.

        Raises:
            SettingError: there is none of this number.
        """
        with self.database.reading() as connection:
            row = connection.execute(
                f"SELECT {COLUMNS} FROM jobs WHERE id = ?", (number,)
            ).fetchone()
            lines = connection.execute(
                "SELECT time, line FROM log WHERE job = ? ORDER BY rowid", (number,)
            ).fetchall()
        if row is None:
            raise SettingError(f"no job {number} here: it was never queued, or has been cleared")
        return _job(row, tuple(LogLine(*line) for line in lines))

    def latest(self, limit: int) -> list[Job]:
        """The newest jobs, newest first, without their logs."""
        with self.database.reading() as connection:
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM jobs ORDER BY id DESC LIMIT ?", (limit,)
            ).fetchall()
        return [_job(row) for row in rows]

    def running(self, desk: str, device: str) -> list[Job]:
        """What a worker is at, the innermost last: an urgent job runs inside a long one."""
        with self.database.reading() as connection:
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM jobs WHERE desk = ? AND device = ? AND state = 'running' "
                "ORDER BY started",
                (desk, device),
            ).fetchall()
        return [_job(row) for row in rows]

    def oldest_start(self) -> float:
        """When the oldest job that still runs was started; now where none runs."""
        with self.database.reading() as connection:
            (started,) = connection.execute(
                "SELECT min(started) FROM jobs WHERE state = 'running'"
            ).fetchone()
        return time.time() if started is None else float(started)

    def cancel(self, number: int) -> None:
        """Cancel a queued job at once; ask a running one to stop. A finished one stays as it is."""
        with self.database.writing() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ? WHERE id = ? AND state = 'queued'",
                (time.time(), number),
            )
            connection.execute(
                "UPDATE jobs SET cancel = 1 WHERE id = ? AND state = 'running'", (number,)
            )

    def clear(self) -> None:
        """Forget every finished job; stored results and prompts stay."""
        with self.database.writing() as connection:
            connection.execute(f"DELETE FROM jobs WHERE state IN ({ENDED})")
            connection.execute("DELETE FROM log WHERE job NOT IN (SELECT id FROM jobs)")

    def fail_queued(self, desk: str, device: str, why: str) -> None:
        """End what waits for a worker that will not come."""
        with self.database.writing() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'failed', error = ?, ended = ? "
                "WHERE desk = ? AND device = ? AND state = 'queued'",
                (why, time.time(), desk, device),
            )

    # --- the worker's side -----------------------------------------------------------------

    def claim(self, desk: str, device: str, *, urgent: bool = False) -> Job | None:
        """Take the next job, urgent ones first; None where nothing waits.

        Args:
            urgent: take urgent ones only.
        """
        if not self.waits(desk, device, urgent=urgent):
            return None
        with self.database.writing() as connection:
            row = connection.execute(
                "UPDATE jobs SET state = 'running', phase = 'starting', started = ? "
                "WHERE id = (SELECT id FROM jobs WHERE state = 'queued' AND desk = ? "
                "AND device = ? AND urgent >= ? "
                f"ORDER BY urgent DESC, id LIMIT 1) RETURNING {COLUMNS}",
                (time.time(), desk, device, urgent),
            ).fetchone()
        return None if row is None else _job(row)

    def waits(self, desk: str, device: str, *, urgent: bool = False) -> bool:
        """Whether a job waits. A read alone, since this is asked after every batch."""
        with self.database.reading() as connection:
            return bool(
                connection.execute(
                    "SELECT 1 FROM jobs WHERE state = 'queued' AND desk = ? AND device = ? "
                    "AND urgent >= ? LIMIT 1",
                    (desk, device, urgent),
                ).fetchone()
            )

    def cancelled(self, number: int) -> bool:
        """Whether the job is to stop."""
        with self.database.reading() as connection:
            row = connection.execute(
                "SELECT cancel OR state <> 'running' FROM jobs WHERE id = ?", (number,)
            ).fetchone()
        return row is None or bool(row[0])

    def set_phase(self, number: int, phase: str) -> None:
        """Say what the job is at."""
        with self.database.writing() as connection:
            connection.execute("UPDATE jobs SET phase = ? WHERE id = ?", (phase, number))

    def set_progress(self, number: int, done: int, total: int, seconds_left: float | None) -> None:
        """Say how far it is, in tokens."""
        with self.database.writing() as connection:
            connection.execute(
                "UPDATE jobs SET done = ?, total = ?, seconds_left = ? WHERE id = ?",
                (done, total, seconds_left, number),
            )

    def write_log(self, number: int, line: str) -> None:
        """Add a line to the job's log."""
        with self.database.writing() as connection:
            connection.execute("INSERT INTO log VALUES (?, ?, ?)", (number, time.time(), line))

    def end(
        self,
        number: int,
        state: str,
        *,
        error: str | None = None,
        results: Mapping[str, str] | None = None,
        refused: Mapping[str, str] | None = None,
    ) -> None:
        """End a running job; one that was ended from outside meanwhile stays so."""
        with self.database.writing() as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, error = ?, results = ?, refused = ?, ended = ?, "
                "phase = '', seconds_left = NULL WHERE id = ? AND state = 'running'",
                (
                    state,
                    error,
                    canonical(results or {}),
                    canonical(refused or {}),
                    time.time(),
                    number,
                ),
            )


def _job(row: sqlite3.Row, log: tuple[LogLine, ...] = ()) -> Job:
    values = dict(row)
    decoded = {name: json.loads(values[name]) for name in ("instruments", "results", "refused")}
    decoded["instruments"] = tuple(decoded["instruments"])
    return Job(**(values | decoded | {"urgent": bool(values["urgent"]), "log": log}))

"""Who is alive: the desks that share a home, and which of their workers are ready.

A job belongs to the desk that queued it. Where a desk's process has ended, its jobs are lost.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from dataclasses import dataclass

import psutil

from workbench.jobs.database import Database

__all__ = ["Roster"]

CLOCK_SECONDS = 60.0  # start times move with the system's clock; a reused pid starts much later
STOPPED = "the workbench was stopped before this job ended: retry it"
LOSE = (  # a job that was to be cancelled is cancelled, whatever ended it
    "UPDATE jobs SET state = CASE cancel WHEN 1 THEN 'cancelled' ELSE 'lost' END, "
    "error = CASE cancel WHEN 1 THEN NULL ELSE ? END, phase = '', seconds_left = NULL, ended = ?"
)


@dataclass(frozen=True)
class Roster:
    """The tables of desks and workers."""

    database: Database

    def enlist(self, desk: str) -> None:
        """Enter a desk of this process."""
        row = (desk, platform.node(), os.getpid(), psutil.Process().create_time())
        with self.database.writing() as connection:
            connection.execute("INSERT INTO desks VALUES (?, ?, ?, ?)", row)

    def dismiss(self, desk: str) -> None:
        """Strike a desk out; what it had not finished is lost."""
        with self.database.writing() as connection:
            connection.execute(
                f"{LOSE} WHERE state IN ('queued', 'running') AND desk = ?",
                (STOPPED, time.time(), desk),
            )
            connection.execute("DELETE FROM workers WHERE desk = ?", (desk,))
            connection.execute("DELETE FROM desks WHERE id = ?", (desk,))

    def sweep(self) -> None:
        """Strike out the desks whose processes have ended."""
        with self.database.reading() as connection:
            desks = connection.execute("SELECT * FROM desks").fetchall()
        for desk in desks:
            if not _alive(desk):
                self.dismiss(desk["id"])

    def lose(self, desk: str, device: str, why: str) -> None:
        """End what a dead worker was at."""
        with self.database.writing() as connection:
            connection.execute(
                f"{LOSE} WHERE state = 'running' AND desk = ? AND device = ?",
                (why, time.time(), desk, device),
            )

    def ready(self, desk: str, device: str) -> None:
        """Say, from within the worker process, that it can take jobs."""
        with self.database.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO workers VALUES (?, ?, ?)", (desk, device, os.getpid())
            )

    def is_ready(self, desk: str, device: str, pid: int) -> bool:
        """Whether the worker with this process id has said so."""
        with self.database.reading() as connection:
            return bool(
                connection.execute(
                    "SELECT 1 FROM workers WHERE desk = ? AND device = ? AND pid = ?",
                    (desk, device, pid),
                ).fetchone()
            )


def _alive(desk: sqlite3.Row) -> bool:
    if desk["host"] != platform.node():
        return True  # a home on a network file system: nothing is known of another machine's
    try:
        process = psutil.Process(desk["pid"])
        same = abs(process.create_time() - float(desk["born"])) < CLOCK_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

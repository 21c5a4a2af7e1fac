"""`workbench jobs`: the jobs of a home folder, seen from a shell."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from workbench.errors import ResultError
from workbench.jobs.database import Database
from workbench.jobs.home import Home, default_home
from workbench.jobs.job import Job
from workbench.jobs.roster import Roster
from workbench.jobs.table import Table

__all__ = ["as_json", "as_table", "cancel", "jobs"]

SHOWN = 50
COLUMNS = "{:>6}  {:<9}  {:<16}  {:>8}  {:<12}  {}"


def jobs(home: Path | None) -> list[Job]:
    """The newest jobs of `home`, newest first; those of a dead process count as lost.

    Raises:
        ResultError: nobody has queued a job there.
    """
    return _table(home).latest(SHOWN)


def cancel(home: Path | None, number: int) -> list[Job]:
    """Cancel one job, and show it: a running one stops before its next batch.

    Raises:
        ResultError: nobody has queued a job there.
        SettingError: there is no such job.
    """
    table = _table(home)
    table.cancel(number)
    return [table.job(number)]


def _table(home: Path | None) -> Table:
    folder = Home(home or default_home())
    if not folder.database.is_file():
        raise ResultError(f"no jobs in {folder.root}: expected the home folder of an app or a desk")
    database = Database(folder.database)
    Roster(database).sweep()
    return Table(database)


def as_json(jobs: Sequence[Job]) -> str:
    """One JSON array, one object a job."""
    return json.dumps([_plain(job) for job in jobs], ensure_ascii=False)


def _plain(job: Job) -> dict[str, Any]:
    fields = dataclasses.asdict(job)
    del fields["log"], fields["desk"]
    return fields


def as_table(jobs: Sequence[Job]) -> str:
    """One line a job."""
    header = COLUMNS.format("job", "state", "queued", "done", "model", "title")
    return "\n".join([header, *(_line(job) for job in jobs)])


def _line(job: Job) -> str:
    queued = datetime.fromtimestamp(job.created).strftime("%Y-%m-%d %H:%M")
    share = f"{job.done / job.total:.0%}" if job.total else ""
    error = f": {job.error}" if job.error else ""
    return COLUMNS.format(job.id, job.state, queued, share, job.model, f"{job.title}{error}")

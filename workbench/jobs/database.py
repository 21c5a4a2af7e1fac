"""The SQLite file that desks and workers share: its tables, and short transactions on them.

A rollback journal, not a write-ahead log: home folders often lie on network file systems, where the
latter's shared memory does not work.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from workbench.errors import ResultError

__all__ = ["Database"]

VERSION = 2
BUSY_SECONDS = 10.0
TABLES = (
    "CREATE TABLE desks (id TEXT PRIMARY KEY, host TEXT, pid INTEGER, born REAL)",
    "CREATE TABLE workers (desk TEXT, device TEXT, pid INTEGER, PRIMARY KEY (desk, device))",
    """CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, model TEXT, urgent INTEGER,
        batch_size INTEGER, instruments TEXT, prompts TEXT, n_prompts INTEGER, retry_of INTEGER,
        desk TEXT, device TEXT, state TEXT, cancel INTEGER DEFAULT 0, phase TEXT DEFAULT '',
        created REAL, started REAL, ended REAL, done INTEGER DEFAULT 0, total INTEGER DEFAULT 0,
        seconds_left REAL, error TEXT, results TEXT DEFAULT '{}', refused TEXT DEFAULT '{}')""",
    "CREATE INDEX jobs_by_state ON jobs (state, desk, device)",
    "CREATE TABLE log (job INTEGER, time REAL, line TEXT)",
    "CREATE INDEX log_by_job ON log (job)",
    "CREATE TABLE prompts (id TEXT PRIMARY KEY, content TEXT)",
)
NAMES = "CREATE TABLE names (name TEXT PRIMARY KEY, prompts TEXT, named REAL)"  # since version 2


class Database:
    """One file; a connection lives for one use, so that threads and processes may share it."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            ResultError: it is no such file, or a newer workbench's.
        """
        self.path = path
        try:
            with self.writing() as connection:
                _prepare(connection, path)
        except sqlite3.DatabaseError as error:
            raise ResultError(f"{path} cannot be used as a table of jobs: {error}") from None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection whose rows can be read by column name."""
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        with closing(connection):
            connection.row_factory = sqlite3.Row
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction: all of what is written, or none of it."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ResultError(
            f"{path} was written by a newer workbench (tables {version}, here {VERSION}): update, "
            "or give another folder"
        )
    missing = {0: (*TABLES, NAMES), 1: (NAMES,)}.get(version)
    for statement in (*missing, f"PRAGMA user_version = {VERSION}") if missing else ():
        connection.execute(statement)

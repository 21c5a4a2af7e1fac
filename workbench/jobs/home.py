"""The folder that jobs live in: the table, the stored results, the workers' logs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import ResultError

__all__ = ["Home", "default_home"]

NAME = "mechanistic-interpretability-workbench"
LARGEST_LOG = 2**20  # bytes; a larger one is begun anew


def default_home() -> Path:
    """$WORKBENCH_HOME, or this program's place among the user's data."""
    if given := os.environ.get("WORKBENCH_HOME"):
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / NAME


@dataclass(frozen=True)
class Home:
    """Paths in a home folder.

    Attributes:
        root: the folder; nobody but its owner can read what is in it.
    """

    root: Path

    @classmethod
    def made(cls, root: str | Path) -> Home:
        """The home at `root`, made where it is missing; what is in it is closed to others.

        Raises:
            ResultError: it cannot be made, or belongs to somebody else.
        """
        home = cls(Path(root).expanduser().absolute())
        try:
            home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (home.results, home.logs, home.prompts):
                folder.mkdir(mode=0o700, exist_ok=True)
            home.database.touch(mode=0o600)
        except OSError as error:
            raise ResultError(
                f"{home.root} cannot be a home for jobs ({error.strerror}): give another folder"
            ) from None
        return home

    @property
    def database(self) -> Path:
        """The SQLite file of jobs and prompts."""
        return self.root / "jobs.sqlite"

    @property
    def results(self) -> Path:
        """The folder of stored results."""
        return self.root / "results"

    @property
    def lenses(self) -> Path:
        """The folder whose fitted lenses a page offers, where it has no other; it may be missing."""
        return self.root / "lenses"

    @property
    def prompts(self) -> Path:
        """The folder of prompts that were written to files, where a setting names one."""
        return self.root / "prompts"

    @property
    def logs(self) -> Path:
        """The folder of the workers' logs."""
        return self.root / "logs"

    def log(self, device: str) -> Path:
        """Where the worker of `device` writes what goes to its stderr."""
        return self.logs / f"worker-{device.replace(':', '-')}.log"

    def trim_log(self, device: str) -> None:
        """Drop a log that has grown large."""
        path = self.log(device)
        if path.is_file() and path.stat().st_size > LARGEST_LOG:
            path.unlink()

"""Stored results: one netCDF file each, under the key of what was measured."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import ResultError
from workbench.results import Result

__all__ = ["ResultFolder"]

KEY = re.compile(r"[0-9a-f]{64}")
LEFT_SECONDS = 3600.0  # an unfinished file as old as this was left by a process that was killed


@dataclass(frozen=True)
class ResultFolder:
    """A folder of results; a file appears whole or not at all."""

    root: Path

    def path(self, key: str) -> Path:
        """Where the result of this key is or would be.

        Raises:
            ResultError: it is no key.
        """
        if not KEY.fullmatch(key):
            raise ResultError(f"{key[:80]!r} is no key of a result: expected 64 hex digits")
        return self.root / f"{key}.nc"

    def save(self, key: str, result: Result) -> None:
        """Store `result`."""
        result.save(self.path(key))

    def load(self, key: str) -> Result:
        """The stored result.

        Raises:
            ResultError: none is stored, or the file is damaged.
        """
        path = self.path(key)
        if not path.is_file():
            raise ResultError(f"no stored result {key[:12]}...: retry its job to measure it again")
        try:
            result = Result.load(path)
        except Exception as error:  # a damaged HDF5 file raises whatever its reader stumbles over
            raise ResultError(
                f"the stored result {key[:12]}... is damaged: retry its job to measure it again"
            ) from error
        os.utime(path)
        return result

    def holds(self, key: str) -> bool:
        """Whether a result is stored that can be read; a damaged file is none."""
        try:
            self.load(key)
        except ResultError:
            return False
        return True

    def prune(self, max_bytes: int, used_before: float) -> None:
        """Remove the results least recently used, until the rest take `max_bytes` at most.

        Args:
            max_bytes: how much may stay.
            used_before: seconds since the epoch; what was used later stays in any case.
        """
        self._sweep()
        files = sorted((file.stat().st_mtime, file) for file in self.root.glob("*.nc"))
        excess = sum(file.stat().st_size for _, file in files) - max_bytes
        for used, file in files:
            if excess <= 0 or used >= used_before:
                return
            excess -= file.stat().st_size
            file.unlink()

    def _sweep(self) -> None:
        for folder in self.root.glob(".unfinished-*"):
            if folder.stat().st_mtime < time.time() - LEFT_SECONDS:
                shutil.rmtree(folder)

"""The test's side of the toy instrument that waits."""

from __future__ import annotations

import os
import select
from pathlib import Path

SECONDS = 60


class Gates:
    """Two pipes in a folder: batches that have begun, and leave to finish them."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        for name in ("begun", "gate"):
            os.mkfifo(folder / name)
        self._begun, self._gate = (os.open(folder / n, os.O_RDWR) for n in ("begun", "gate"))

    def wait_for_batch(self) -> None:
        """Wait until one more batch has begun."""
        assert select.select([self._begun], [], [], SECONDS)[0], "no batch has begun"
        os.read(self._begun, 1)

    def batches_begun(self) -> int:
        """How many have begun since, without waiting."""
        ready = select.select([self._begun], [], [], 0)[0]
        return len(os.read(self._begun, 1000)) if ready else 0

    def open(self, batches: int) -> None:
        """Let this many batches finish."""
        os.write(self._gate, b"." * batches)

    def close(self) -> None:
        os.close(self._begun)
        os.close(self._gate)

"""How far a report is, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from workbench.passes import Progress

__all__ = ["Headway", "Pace"]


@dataclass(frozen=True)
class Headway:
    """How far a report is.

    Attributes:
        done: prompts measured by this process; a fraction within a shard.
        total: prompts that were left to it when it began.
        seconds: since it began.
    """

    done: float
    total: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before anything is done."""
        return self.seconds * (self.total - self.done) / self.done if self.done else None


@dataclass
class Pace:
    """Counts prompts, and tells `show` of every step."""

    total: int
    show: Callable[[Headway], None]
    began: float = field(default_factory=time.monotonic)
    done: int = 0

    def add(self, prompts: int) -> None:
        """A shard of so many prompts has ended."""
        self.done += prompts
        self._say(self.done)

    def within(self, prompts: int, progress: Progress) -> None:
        """A pass over so many prompts, the next ones, is on its way."""
        self._say(self.done + prompts * progress.done / max(progress.total, 1))

    def _say(self, done: float) -> None:
        self.show(Headway(done, self.total, time.monotonic() - self.began))

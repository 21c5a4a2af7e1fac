"""How far a pass is, whether to go on, and what it has measured so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from workbench.assembly import Parts
from workbench.errors import Cancelled
from workbench.instrument import SetLevel, State
from workbench.passes.job import Job

__all__ = ["CancelFlag", "Progress", "Work"]


@dataclass(frozen=True)
class Progress:
    """How far a pass is.

    Attributes:
        done, total: tokens; of a simulation, steps.
        seconds: since it began.
    """

    done: int
    total: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before the first batch is done."""
        return self.seconds * (self.total - self.done) / self.done if self.done else None


class CancelFlag(Protocol):
    """What `cancel=` takes: a `threading.Event`, for one."""

    def is_set(self) -> bool:
        """Whether to stop before the next batch."""


@dataclass
class Work:
    """What has been measured so far."""

    parts: list[Parts]
    states: dict[int, State]
    total: int
    report: Callable[[Progress], None]
    began: float
    done: int = 0

    @classmethod
    def begin(
        cls,
        job: Job,
        report: Callable[[Progress], None] | None,
        last: Sequence[int] = (),
    ) -> Work:
        """`last` are the tokens that instruments run after the batches."""
        states = {
            i: it.start(job.model)
            for i, it in enumerate(job.instruments)
            if isinstance(it, SetLevel)
        }
        parts = [Parts() for _ in job.instruments]
        total = job.plan.tokens + sum(last)
        work = cls(parts, states, total, report or (lambda _: None), time.monotonic())
        work.add(0)
        return work

    def add(self, tokens: int) -> None:
        """Count tokens as done, and report it."""
        self.done += tokens
        self.tell(0)

    def tell(self, within: float) -> None:
        """Report what is done, and `within` tokens of the batch that is being measured."""
        seconds = time.monotonic() - self.began
        self.report(Progress(self.done + int(within), self.total, seconds))

    def go_on(self, cancel: CancelFlag | None) -> None:
        """Stop where the run was cancelled."""
        if cancel is not None and cancel.is_set():
            raise Cancelled(
                f"cancelled after {self.done} of {self.total} tokens; no result was made"
            )

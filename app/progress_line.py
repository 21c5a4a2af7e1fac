"""Progress of a long command on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import typer

__all__ = ["ProgressLine"]

SECONDS_BETWEEN_LINES = 30.0


class Counted(Protocol):
    """What is done of how much."""

    @property
    def done(self) -> float: ...
    @property
    def total(self) -> int: ...


T = TypeVar("T", bound=Counted)


class ProgressLine(Generic[T]):
    """One line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, words: Callable[[T], str]) -> None:
        """`words` says how far it is."""
        self._words = words
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES

    def __call__(self, progress: T) -> None:
        """Show it."""
        if sys.stderr.isatty():
            end = "\n" if progress.done == progress.total else ""
            sys.stderr.write(f"\r{self._words(progress):<50}{end}")
            sys.stderr.flush()
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS_BETWEEN_LINES
            typer.echo(self._words(progress), err=True)

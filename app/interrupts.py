"""Interrupts of a long command: the first lets it stop where it can go on, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

__all__ = ["stopping"]


@contextmanager
def stopping(first: str, second: str) -> Iterator[threading.Event]:
    """An event that the first interrupt sets; the second one ends the command with exit code 1.

    Args:
        first, second: what is said then: when it will stop, and what is kept.
    """
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def interrupted(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop.set()
        typer.echo(f"\n{first}; again to stop at once", err=True)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield stop
    except KeyboardInterrupt:
        typer.echo(f"stopped; {second}", err=True)
        raise typer.Exit(1) from None
    finally:
        signal.signal(signal.SIGINT, before)

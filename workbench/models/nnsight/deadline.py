"""A time by which a request is over: httpx's own timeouts start anew with every byte that comes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Timer
from typing import Any

__all__ = ["cut_at"]


@contextmanager
def cut_at(end: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Cut, at a time of the monotonic clock, the connections that are noted with what this gives.

    It is what a request of httpx takes as its extension "trace". A request that is cut fails, or
    seems to end early: whoever asked looks at the clock.
    """
    sockets: list[Any] = []
    over = Event()

    def cut() -> None:
        over.set()
        for one in sockets:
            with suppress(OSError):  # it is closed already
                # Not an encrypted one's own, which takes away what a read in another thread is using.
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def note(_: str, info: dict[str, Any]) -> None:
        made: Any = info.get("return_value")
        if hasattr(made, "get_extra_info"):  # a stream over a new connection, plain or encrypted
            sockets.append(made.get_extra_info("socket"))
            if over.is_set():
                cut()

    timer = Timer(max(0.0, end - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield note
    finally:
        timer.cancel()

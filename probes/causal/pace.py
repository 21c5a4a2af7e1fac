"""How far a part of the work is, as a share of the whole."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["within"]


def within(pace: Callable[[float], None], start: float, share: float) -> Callable[[float], None]:
    """Of a part that begins when `start` of all is done and is `share` of it: 0..1 of that part."""
    return lambda done: pace(start + share * done)

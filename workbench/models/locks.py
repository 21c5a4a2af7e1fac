"""One lock for each model: hooks belong to the module, whoever attached them."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from threading import Lock, RLock
from types import TracebackType
from weakref import WeakKeyDictionary

from torch import nn

__all__ = ["Turns", "lock_of"]

_guard = Lock()
_locks: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()


def lock_of(model: nn.Module) -> RLock:
    """The lock of `model`, the same at every call."""
    with _guard:
        return _locks.setdefault(model, RLock())


class Turns(AbstractContextManager[None]):
    """A lock that has more open while a thread holds it. Re-entrant, as the lock that it is made of is."""

    def __init__(self) -> None:
        self._held: list[AbstractContextManager[None]] = []

    @abstractmethod
    def _turn(self) -> AbstractContextManager[None]:
        """One turn: the lock is held, and what belongs to it is open."""

    def __enter__(self) -> None:
        held = self._turn()
        held.__enter__()
        self._held.append(held)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.pop().__exit__(kind, error, trace)

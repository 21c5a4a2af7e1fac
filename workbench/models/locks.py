"""One lock for each model: hooks belong to the module, whoever attached them."""

from __future__ import annotations

from threading import Lock, RLock
from weakref import WeakKeyDictionary

from torch import nn

__all__ = ["lock_of"]

_guard = Lock()
_locks: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()


def lock_of(model: nn.Module) -> RLock:
    """The lock of `model`, the same at every call."""
    with _guard:
        return _locks.setdefault(model, RLock())

"""The one place that imports nnsight, so that what its import does to the process stays here.

Imported as it comes, nnsight takes `-v` on any program's command line for a debug flag of its own,
puts a `save` method on every object of the process, and wraps `Tensor.backward`. A program that has
imported nnsight by itself keeps what it has; where the workbench is first, the flag is not seen
and the other two are taken back (write `nnsight.save(value)` then).

One thing stays: glibc's `backtrace()` returns nothing from then on. An error inside torch, raised
in an edit, would end the process without it; only the C++ part of a traceback is lost.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Lock
from typing import Any

import torch

from workbench.errors import ModelError

__all__ = ["is_nnsight", "nnsight"]

_guard = Lock()


def nnsight() -> Any:
    """The nnsight library.

    Raises:
        ModelError: it cannot be imported.
    """
    with _guard:
        if "nnsight" not in sys.modules:
            _import_quietly()
    return sys.modules["nnsight"]


def is_nnsight(model: Any) -> bool:
    """Whether `model` is an nnsight model; asking does not import nnsight."""
    library = sys.modules.get("nnsight")
    return library is not None and isinstance(model, library.Envoy)


def _import_quietly() -> None:
    backward = torch.Tensor.backward
    try:
        with _without_arguments():
            import_module("nnsight")
    except ImportError as error:
        raise ModelError(
            f"nnsight cannot be imported ({error}): install nnsight>=0.8.1,<0.9 for this engine"
        ) from error
    torch.Tensor.backward = backward  # type: ignore[method-assign]
    if hasattr(object, "save"):
        import_module("nnsight._c").unmount("save")


@contextmanager
def _without_arguments() -> Iterator[None]:
    """The command line without its arguments, for the length of the context."""
    own = sys.argv
    sys.argv = own[:1]
    try:
        yield
    finally:
        sys.argv = own

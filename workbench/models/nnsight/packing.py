"""Packing a trace to send it: the functions that it names go along as source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from threading import RLock
from typing import Any

from workbench.errors import UnsupportedError
from workbench.models.nnsight.contained import nnsight

__all__ = ["by_value", "packed"]

_turn = RLock()  # the table below is one for the process


@contextmanager
def by_value() -> Iterator[None]:
    """Functions of the workbench and of local modules are sent as source, inside the context alone.

    nnsight would register the local modules for the rest of the process, in a table that every
    user of cloudpickle shares.
    """
    names = import_module("cloudpickle.cloudpickle")._PICKLE_BY_VALUE_MODULES
    with _turn:
        own = set(names)
        try:
            names |= {"workbench", *_local_modules()}
            yield
        finally:
            names.clear()
            names |= own


@cache
def _local_modules() -> frozenset[str]:
    packages = nnsight().ndif.get_local_env()["packages"]
    return frozenset(name for name, found in packages.items() if found == "local")


def packed(tracer: Any) -> bytes:
    """A captured trace as nnsight sends it.

    Raises:
        UnsupportedError: something in it cannot be sent.
    """
    request = import_module("nnsight.schema.request").RequestModel
    try:
        with by_value():
            content: bytes = request.serialize(tracer)
    except Exception as error:  # whatever a function of the user's holds that cannot travel
        raise UnsupportedError(
            f"the pass cannot be sent to NDIF ({error}): an edit or a scalar may use plain functions, "
            "numbers and tensors"
        ) from error
    return content

"""nnsight's tree over a Hugging Face model, on the model only while a pass runs.

nnsight gives every module a forward of its own and leaves it there. Here it is put on for a pass
and taken off after it, so that the model is the caller's own between two passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from torch import nn

from workbench.errors import ModelError
from workbench.models.nnsight.contained import nnsight

__all__ = ["Tree"]

# What nnsight writes into a module: its forward, its state, and the name under which it is sent.
NAMES = ("forward", "__nnsight__", "_persistent_id")


class Tree:
    """The envoys of one model.

    Attributes:
        hf: the model.
        root: its envoy.
    """

    def __init__(self, hf: nn.Module) -> None:
        nnsight()
        self.hf = hf
        own = [(module, _written(module)) for module in hf.modules()]
        self.root: Any = import_module("nnsight.modeling.mixins.remotable").Remotable(hf)
        self._wrapped = [(module, _written(module)) for module, _ in own]
        _write(own)
        self._envoys = {id(envoy._module): envoy for envoy in self.root.modules()}

    def envoy(self, module: nn.Module) -> Any:
        """The envoy of `module`.

        Raises:
            ModelError: the module came into the model after it was loaded.
        """
        if id(module) not in self._envoys:
            raise ModelError(
                f"{type(module).__name__} was put into the model after it was loaded: load the model "
                "again"
            )
        return self._envoys[id(module)]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Nnsight's forwards are on the model inside the context."""
        own = [(module, _written(module)) for module, _ in self._wrapped]
        try:
            _write(self._wrapped)
            yield
        finally:
            _write(own)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """A pass inside the context goes by unseen, also from within a traced one."""
        interleaver = self.root.interleaver
        running, interleaver.interleaving = interleaver.interleaving, False
        try:
            yield
        finally:
            interleaver.interleaving = running

    @property
    def running(self) -> bool:
        """Whether a traced pass is under way."""
        return bool(self.root.interleaver.interleaving)


Written = list[tuple[nn.Module, dict[str, Any]]]


def _written(module: nn.Module) -> dict[str, Any]:
    return {name: module.__dict__[name] for name in NAMES if name in module.__dict__}


def _write(states: Written) -> None:
    for module, state in states:
        for name in NAMES:
            module.__dict__.pop(name, None)
        module.__dict__.update(state)

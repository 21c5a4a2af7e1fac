"""The models that a worker holds: the last few, loaded when they are first asked for."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Mapping

from workbench.errors import ModelError
from workbench.jobs.spec import ModelSpec
from workbench.models.engine import Engine

__all__ = ["Shelf"]

HELD = 3  # models


class Shelf:
    """Models of one device; the least recently used goes where another is wanted."""

    def __init__(self, specs: Mapping[str, ModelSpec], device: str) -> None:
        self._specs = specs
        self._device = device
        self._models: OrderedDict[str, Engine] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        """Whether the model is loaded."""
        return name in self._models

    def model(self, name: str) -> Engine:
        """The model called `name`.

        Raises:
            ModelError: there is none of this name, or it cannot be loaded.
        """
        if name not in self._specs:
            raise ModelError(f"no model {name!r} here: expected one of {', '.join(self._specs)}")
        if name not in self._models:
            self._make_room()
            self._models[name] = self._specs[name].load(self._device)
        self._models.move_to_end(name)
        return self._models[name]

    def _make_room(self) -> None:
        while len(self._models) >= HELD:
            self._models.popitem(last=False)
        gc.collect()  # modules hold cycles; the next model needs the memory now

"""LoRA adapters inside a model: which there are, which is on, and what belongs to which.

PEFT puts a layer with the adapters' weights around each linear map that they change; the map itself
stays as it was, and so does every module's path.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ModelError, UnsupportedError
from workbench.models.locks import Turns, lock_of

__all__ = [
    "active_adapter",
    "adapter_layers",
    "adapter_names",
    "adapter_tensors",
    "base_tensors",
    "belongs",
    "set_layer",
    "turns",
]

OF_ADAPTER = re.compile(r"\.(lora_[A-Za-z_]+)\.([^.]+)")
WRAPPED = ".base_layer."


def adapter_layers(hf: Any) -> list[Any]:
    """PEFT's layers in a model, by which adapters are switched.

    Raises:
        UnsupportedError: they are of another kind than LoRA.
        ModelError: an adapter is merged into the weights.
    """
    if "peft" not in sys.modules:  # no layer of it can exist
        return []
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    found = [m for m in hf.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    for layer in found:
        if not isinstance(layer, LoraLayer):
            raise UnsupportedError(
                f"the model holds a PEFT layer {type(layer).__name__}: expected LoRA layers; merge the "
                "adapter and load the merged model"
            )
        _require_unmerged(layer)
    return found


def _require_unmerged(layer: Any) -> None:
    """Refuse weights that an adapter has been added to: PEFT would take it out to switch it off."""
    if layer.merged:
        raise ModelError(
            "an adapter is merged into the model's weights: call unmerge_adapter() first"
        )


def adapter_names(hf: Any) -> list[str]:
    """The adapters that a model holds, in alphabetical order."""
    return sorted({name for layer in adapter_layers(hf) for name in _names(layer)})


def active_adapter(hf: Any) -> str | None:
    """The adapter that is on; None where none is.

    Raises:
        UnsupportedError: several are.
    """
    layers = adapter_layers(hf)
    found = {name for layer in layers if not layer.disable_adapters for name in _active(layer)}
    if len(found) > 1:
        raise UnsupportedError(
            f"adapters {', '.join(sorted(found))} are on at once: switch on one, or merge them into one"
        )
    return next(iter(found), None)


def _names(layer: Any) -> set[str]:
    return {*layer.lora_A, *layer.lora_embedding_A}


def _active(layer: Any) -> set[str]:
    return _names(layer) & set(layer.active_adapters)


def belongs(tensor: str, adapter: str) -> bool:
    """Whether a tensor of this name is the adapter's."""
    part = OF_ADAPTER.search(tensor)
    return part is not None and part[2] == adapter


def base_tensors(hf: Any) -> dict[str, Tensor]:
    """The weights and buffers without those of adapters, under the names that they have without."""
    return {
        name.replace(WRAPPED, "."): tensor
        for name, tensor in hf.state_dict().items()
        if not OF_ADAPTER.search(name)
    }


def adapter_tensors(hf: Any, adapter: str) -> dict[str, Tensor]:
    """An adapter's weights and scales, under names that do not say what it is called."""
    weights = {
        OF_ADAPTER.sub(r".\1", name): tensor
        for name, tensor in hf.state_dict().items()
        if belongs(name, adapter)
    }
    layers = [layer for layer in adapter_layers(hf) if adapter in layer.scaling]
    scales = [torch.tensor(layer.scaling[adapter], dtype=torch.float64) for layer in layers]
    return weights | {f"scale {number}": scale for number, scale in enumerate(scales)}


def set_layer(layer: Any, active: str | list[str], off: bool) -> None:
    """Say which adapters are on in a layer, or that none is.

    PEFT's own calls would also say which weights are to be trained, and take much longer.
    """
    layer._active_adapter, layer._disable_adapters = active, off


@contextmanager
def _switched(layers: Mapping[Any, str | None]) -> Iterator[None]:
    """Each layer's adapter alone is on, or none; afterwards each is as it was."""
    before = [(layer, layer.active_adapter, layer.disable_adapters) for layer in layers]
    try:
        for layer, adapter in layers.items():
            _require_unmerged(layer)
            set_layer(layer, adapter or layer.active_adapter, adapter is None)
        yield
    finally:
        for layer, active, off in before:
            set_layer(layer, active, off)


def turns(hf: Any, adapter: str | None) -> AbstractContextManager[Any]:
    """The lock of a model, which while it is held has `adapter` alone on, or none.

    Views of one model that differ in the adapter take turns: no thread sees another's, and when
    nobody holds the lock the model is as its owner left it. Re-entrant, as the lock is.
    """
    lock, layers = lock_of(hf), adapter_layers(hf)
    return _AdapterTurns(layers, adapter, lock) if layers else lock


class _AdapterTurns(Turns):
    """See `turns`."""

    def __init__(self, layers: Sequence[Any], adapter: str | None, lock: RLock) -> None:
        super().__init__()
        self._layers = {layer: adapter if adapter in _names(layer) else None for layer in layers}
        self._lock = lock

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._lock, _switched(self._layers):
            yield

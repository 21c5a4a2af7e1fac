"""Keys and values of a batch's earlier columns, so that a pass can run its later columns alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["KeyValues"]


@dataclass(frozen=True)
class KeyValues:
    """Keys and values by block: pairs of [rows, heads, width, head width].

    Attributes:
        layers: one (keys, values) pair a block, from block 1 on.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def width(self) -> int:
        """How many columns of the batch they cover."""
        return int(self.layers[0][0].shape[2])

    def before(self, column: int) -> KeyValues:
        """Those of the columns below `column` (views)."""
        return KeyValues(tuple((k[:, :, :column], v[:, :, :column]) for k, v in self.layers))

    @classmethod
    def of_cache(cls, cache: Any) -> KeyValues:
        """From a Hugging Face cache."""
        return cls(tuple((layer.keys, layer.values) for layer in cache.layers))

    def as_cache(self) -> Any:
        """A new Hugging Face cache; a pass that appends to it leaves these tensors as they are."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for index, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, index)
        return cache

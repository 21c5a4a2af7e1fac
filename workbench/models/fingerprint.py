"""A hash of the weights as they are now, so that a result says which weights it speaks of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Fingerprint", "hash_text"]

PRIME = 65521
CHUNK = 2**22  # numbers at a time: 32 MiB as int64
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def hash_text(text: str) -> str:
    """First 16 hex digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Fingerprint:
    """Hash of every tensor's name, shape, dtype and bits, packed weights of any kind included.

    Taken anew only where a tensor's place, version or sum has changed (a write through `.data`
    leaves no version).

    The bits of a tensor go into two checksums, one plain and one weighted by place, computed where
    the tensor lies; the checksums go into SHA-256. Not meant against forgery.
    """

    def __init__(self, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """`tensors` gives those that are hashed, by name."""
        self._tensors = tensors
        self._state: Any = None
        self._hash = ""

    def __call__(self) -> str:
        """16 hex digits."""
        tensors = self._tensors()
        state = [(t.data_ptr(), t._version, _sum(t)) for t in tensors.values()]
        if state != self._state:
            parts = [f"{name} {_checksum(tensor)}" for name, tensor in tensors.items()]
            self._state, self._hash = state, hash_text("\n".join(parts))
        return self._hash


def _sum(tensor: Tensor) -> float:
    """Of the numbers, or of the bytes of a packed dtype that torch does not add up."""
    packed = tensor.itemsize == 1 and tensor.dtype != torch.bool
    return float((tensor.detach().view(torch.int8) if packed else tensor).sum())


@torch.no_grad()
def _checksum(tensor: Tensor) -> str:
    bits = tensor.detach().contiguous().flatten().view(INTEGERS[tensor.itemsize])
    plain, weighted = 0, 0
    for number, part in enumerate(torch.split(bits, CHUNK)):
        wide = part.to(torch.int64)
        plain += int(wide.sum())
        weighted += (number + 1) * int((wide * _weights(len(wide), wide.device)).sum())
    return f"{tensor.dtype} {tuple(tensor.shape)} {plain} {weighted}"


def _weights(length: int, device: torch.device) -> Tensor:
    return torch.arange(length, device=device) % PRIME + 1

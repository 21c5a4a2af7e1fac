"""A hash of the weights as they are now, so that a result says which weights it speaks of."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Fingerprint", "hash_text"]

PRIME = 65521
CHUNK = 2**22  # numbers at a time: 32 MiB as int64
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def hash_text(text: str) -> str:
    """First 16 hex digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Fingerprint:
    """Hash of every parameter's name, shape, dtype and bits; taken anew only after a change.

    The bits of a tensor go into two checksums, one plain and one weighted by place, computed where
    the tensor lies; the checksums go into SHA-256. Not meant against forgery.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._state: Any = None
        self._hash = ""

    def __call__(self) -> str:
        """16 hex digits."""
        state = [(p.data_ptr(), p._version) for p in self._model.parameters()]
        if state != self._state:
            parts = [f"{n} {_checksum(p)}" for n, p in self._model.named_parameters()]
            self._state, self._hash = state, hash_text("\n".join(parts))
        return self._hash


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

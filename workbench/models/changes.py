"""Weights changed for the passes of one view of a model, and of no other: nothing is written.

A change of low rank, W + sum_r left_r^T right_r, is added to what the map gives, so that taking it
back is exact: the weights themselves were never touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.errors import SettingError
from workbench.models.anatomy import Anatomy
from workbench.models.fused import output_width
from workbench.models.hooks import Attachable, Tap, attached
from workbench.models.locks import Turns

__all__ = ["Change", "ChangedTurns", "Changes", "merged", "said", "taps_of"]


@dataclass(frozen=True)
class Change:
    """What is added to the weight [d_in, d_out] of a linear map z = x W: left^T right.

    Attributes:
        left: [rank, d_in].
        right: [rank, d_out].
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or len(self.left) != len(self.right):
            shapes = f"{tuple(self.left.shape)} and {tuple(self.right.shape)}"
            raise SettingError(f"a change of {shapes}: expected [rank, d_in] and [rank, d_out]")
        if not (self.left.isfinite().all() and self.right.isfinite().all()):
            raise SettingError("a change that is not finite: expected finite numbers")

    @property
    def formed(self) -> Tensor:
        """The matrix itself, [d_in, d_out]."""
        return self.left.T @ self.right

    @property
    def norm(self) -> float:
        """Frobenius norm of the matrix, which is not formed for it."""
        square = ((self.left @ self.left.T) * (self.right @ self.right.T)).sum()
        return float(square.clamp_min(0).sqrt())


Changes = Mapping[tuple[str, int], Change]
"""By (name, layer) of the linear map."""


def merged(first: Changes, second: Changes) -> dict[tuple[str, int], Change]:
    """Both together."""
    found = dict(first)
    for key, change in second.items():
        if key in found:
            left = torch.cat([found[key].left, change.left])
            change = Change(left, torch.cat([found[key].right, change.right]))
        found[key] = change
    return found


def said(changes: Changes) -> list[dict[str, Any]]:
    """What a result must say of the changes that it was measured under."""
    return [
        {"map": name, "layer": layer, "rank": len(change.left), "hash": _hash(change)}
        for (name, layer), change in changes.items()
    ]


def _hash(change: Change) -> str:
    digest = hashlib.sha256()
    for part in (change.left, change.right):
        digest.update(part.detach().double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def taps_of(anatomy: Anatomy, changes: Changes) -> list[tuple[Attachable, Tap]]:
    """The taps that make the changes.

    Raises:
        UnsupportedError: a map that the family lacks.
        SettingError: a change of another width than the map's.
    """
    taps: list[tuple[Attachable, Tap]] = []
    for (name, layer), change in changes.items():
        module = anatomy.map_module(name, layer)
        width, own = output_width(module), anatomy.map_outputs(name, layer)
        _require(name, layer, "reads", change.left, _input_width(module, width))
        _require(name, layer, "writes", change.right, width if own is None else len(own))
        right = change.right
        if own is not None:
            right = right.new_zeros(len(right), width).index_copy(1, own.to(right.device), right)
        given: list[Tensor] = []
        taps.append((anatomy.map_point(name, layer, "input"), _noting(given)))
        taps.append((anatomy.map_point(name, layer, "output"), _adding(given, change.left, right)))
    return taps


def _require(name: str, layer: int, what: str, factor: Tensor, expected: int) -> None:
    if factor.shape[1] != expected:
        raise SettingError(
            f"a change of {name}, layer {layer}, {what} {factor.shape[1]} numbers: expected {expected}"
        )


def _input_width(module: Any, output: int) -> int:
    return int(module.weight.numel() // output)


def _noting(given: list[Tensor]) -> Tap:
    def note(value: Tensor) -> None:
        given[:] = [value]

    return note


def _adding(given: list[Tensor], left: Tensor, right: Tensor) -> Tap:
    def add(value: Tensor) -> Tensor:
        return value + (given.pop() @ left.T.to(value)) @ right.to(value)

    return add


class ChangedTurns(Turns):
    """The lock of a model, which while it is held by this thread has the changes on. Re-entrant."""

    def __init__(
        self, lock: AbstractContextManager[Any], taps: list[tuple[Attachable, Tap]]
    ) -> None:
        super().__init__()
        self._lock = lock
        self._taps = taps

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._lock, attached([] if self._held else self._taps):
            yield

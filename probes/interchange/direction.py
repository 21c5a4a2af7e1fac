"""Directions that are given: a tensor, or a safetensors file that holds one."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from probes.interchange.subspaces import orthonormal
from workbench.errors import SettingError

__all__ = ["Direction"]

DIGITS = 16  # of the SHA-256 of the numbers
FILE = rf"(.*?)(?:#([0-9a-f]{{{DIGITS}}}))?"


class Direction:
    """Given directions, and the subspace that they span.

    Attributes:
        rows: [n, width], float32 at least.
        file: where they were read; None where a tensor was given.
    """

    def __init__(self, rows: Tensor, file: Path | None = None) -> None:
        wide = rows.detach()[None] if rows.dim() == 1 else rows.detach()
        wide = wide.to(torch.promote_types(wide.dtype, torch.float32))
        if wide.dim() != 2 or not wide.isfinite().all() or not wide.any():
            raise SettingError(
                f"interchange: direction of shape {tuple(rows.shape)}: expected finite numbers [width] or "
                "[directions, width], not all 0"
            )
        self.rows, self.file = wide, file
        if self.basis.shape[1] < len(wide):
            raise SettingError(
                f"interchange: {len(wide)} directions span {self.basis.shape[1]} dimensions: expected "
                "independent ones"
            )

    @classmethod
    def of(cls, given: Any) -> Direction | None:
        """Of a tensor, a file's path (a hash "#..." after it must match), or "" for none.

        Raises:
            SettingError: no such file, one that holds not exactly one tensor, or other numbers.
        """
        if given is None or isinstance(given, Direction):
            return given
        if isinstance(given, Tensor):
            return cls(given)
        if not isinstance(given, str | Path):
            raise SettingError(
                f"interchange: direction is {type(given).__name__}: expected a tensor or a file"
            )
        path, digits = re.fullmatch(FILE, str(given), re.DOTALL).groups("")  # type: ignore[union-attr]
        return cls._read(Path(path), digits) if path else None

    @classmethod
    def _read(cls, path: Path, digits: str) -> Direction:
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise SettingError(
                f"interchange: direction {path}: expected a safetensors file ({error})"
            ) from None
        if len(tensors) != 1:
            raise SettingError(
                f"interchange: direction {path} holds {len(tensors)} tensors "
                f"({', '.join(sorted(tensors)[:8])}): expected one"
            )
        found = cls(next(iter(tensors.values())), path)
        if digits and digits != found.hash:
            raise SettingError(
                f"interchange: direction {path} has the hash {found.hash}: expected {digits}"
            )
        return found

    @property
    def basis(self) -> Tensor:
        """[width, n] orthonormal columns."""
        return orthonormal(self.rows)

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the numbers."""
        return hashlib.sha256(self.rows.double().cpu().numpy().tobytes()).hexdigest()[:DIGITS]

    def __str__(self) -> str:
        return f"{self.file or 'tensor'}#{self.hash}"

    def __repr__(self) -> str:
        return f"<{len(self.rows)} directions of width {self.rows.shape[1]}, {self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Direction) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

"""What all metrics share: sets of vectors with a mask, and their pairs a block of rows at a time.

Everywhere here `u` is [..., n, d], unit vectors, and `mask` is [..., n], True where a token counts.
What stands at the other places, NaN included, changes nothing. Half precision is computed in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = [
    "cosine_blocks",
    "counts",
    "filled",
    "or_nan",
    "row_slices",
    "upper_blocks",
    "working_dtype",
]

PAIRS = 2**23  # pairs at once over the whole batch: 32 MiB of float32


def working_dtype(u: Tensor) -> torch.dtype:
    """What metrics of `u` are computed in and returned as: float64 of float64, float32 of all else."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def filled(u: Tensor, mask: Tensor) -> Tensor:
    """`u` with zeros where the mask is False, in its working dtype."""
    return torch.where(mask[..., None], u.to(working_dtype(u)), 0.0)  # sooner than masked_fill


def counts(mask: Tensor, like: Tensor) -> Tensor:
    """[...] how many tokens count, in the dtype of `like`."""
    return mask.sum(-1).to(like.dtype)


def or_nan(value: Tensor, defined: Tensor) -> Tensor:
    """`value` where it is defined, NaN elsewhere."""
    return value.masked_fill(~defined, torch.nan)


def row_slices(shape: torch.Size) -> Iterator[slice]:
    """Rows of [..., n, n] of a mask's shape [..., n]: as many at once as make at most `PAIRS` entries."""
    step = max(1, PAIRS // max(shape.numel(), 1))
    for start in range(0, shape[-1], step):
        yield slice(start, min(start + step, shape[-1]))


def cosine_blocks(u: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of u U^T, a block at a time: (rows, [..., rows, n]), at most `PAIRS` entries together."""
    for rows in row_slices(u.shape[:-1]):
        yield rows, u[..., rows, :] @ u.mT


def upper_blocks(v: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of V V^T from the diagonal on: (rows, [..., rows, n - rows.start]), at most `PAIRS` together.

    An eighth of the rows at a time, where that is enough for a matrix product: 9/16 of the products.
    """
    size = v.shape[-2]
    step = max(1, min(max(-(-size // 8), 64), PAIRS // max(v.shape[:-1].numel(), 1)))
    for start in range(0, size, step):
        rows = slice(start, min(start + step, size))
        yield rows, v[..., rows, :] @ v[..., start:, :].mT

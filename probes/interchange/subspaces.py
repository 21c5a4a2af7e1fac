"""Orthonormal bases of subspaces, and what an interchange in one does to a value."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["axes", "class_means", "matched", "moved", "orthonormal", "other_axes", "random_basis"]


def moved(base: Tensor, source: Tensor, basis: Tensor) -> Tensor:
    """[N, width] what is added to the base: (source - base) B B^T.

    Args:
        base, source: [N, width] values.
        basis: [width, k] B, orthonormal columns.
    """
    return (source - base) @ basis @ basis.T


def matched(base: Tensor, source: Tensor, basis: Tensor, like: Tensor) -> Tensor:
    """[N, width] the same, scaled row by row to the length of `like`; 0 where it cannot be."""
    own = moved(base, source, basis)
    length = own.norm(dim=-1, keepdim=True)
    scale = like.norm(dim=-1, keepdim=True) / length
    return own * torch.where(length > 0, scale, torch.zeros_like(scale))


def orthonormal(rows: Tensor, most: int | None = None, size: float | None = None) -> Tensor:
    """[width, k] leading directions of the span of `rows` [n, width], k at most its rank.

    Args:
        size: of the numbers that the rows were computed from, whose rounding is no direction; the
            rows' own where None.
    """
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    own = float(sizes.max()) if size is None else size
    floor = own * max(rows.shape) * torch.finfo(rows.dtype).eps
    rank = int((sizes > floor).sum())
    kept: Tensor = directions[: rank if most is None else min(rank, most)].T
    return kept


def class_means(values: Tensor, classes: Tensor, kinds: Tensor, most: int) -> Tensor:
    """[width, k] span of the differences of class means, its k leading directions.

    Differences are taken within a kind: the means of its classes less the mean of those, from which
    any difference of two can be made. c classes of one kind span c - 1 dimensions.

    Args:
        values: [n, width], one row a prompt.
        classes: [n] of each row.
        kinds: [n] of each row; every class is of one kind.
        most: k at most.
    """
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    found, index = torch.unique(torch.stack([kinds, classes], 1), dim=0, return_inverse=True)
    means = _means(wide, index, len(found))
    _, kind = torch.unique(found[:, 0], return_inverse=True)
    count = int(kind.max()) + 1
    differences = means - _means(means, kind, count)[kind]
    return orthonormal(differences, min(most, len(means) - count), float(means.norm()))


def _means(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """[count, width] the mean of the rows of each index."""
    index = index.to(rows.device)
    sums = rows.new_zeros(count, rows.shape[1]).index_add(0, index, rows)
    return sums / torch.bincount(index, minlength=count)[:, None]


def axes(width: int, indices: Sequence[int], like: Tensor) -> Tensor:
    """[width, k] unit vectors of these coordinates."""
    found = like.new_zeros(width, len(indices))
    found[list(indices), list(range(len(indices)))] = 1
    return found


def random_basis(width: int, k: int, seed: int) -> Tensor:
    """[width, k] a subspace drawn uniformly, float64 on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(width, k, generator=generator, dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(drawn)[0]
    return basis


def other_axes(width: int, indices: Sequence[int], seed: int) -> list[int]:
    """As many other coordinates, drawn at random; any where there are not as many others."""
    rest = [i for i in range(width) if i not in set(indices)]
    pool = rest if len(rest) >= len(indices) else list(range(width))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(pool), generator=generator)[: len(indices)]
    return [pool[i] for i in drawn.tolist()]

"""Intrinsic dimension from the two nearest neighbours, duplicates removed first."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from probes.particles.sets import cosine_blocks, counts, filled, or_nan, working_dtype

__all__ = ["FEWEST_POINTS", "two_nn", "without_duplicates"]

FEWEST_POINTS = 50  # below which results leave it out: its standard error is above 15% of it

KEPT = 0.9  # of the ratios, the smaller ones: Facco's choice
SAME = 64 * torch.finfo(torch.float64).eps  # of squared lengths: a squared distance's rounding


def two_nn(x: Tensor, mask: Tensor, fewest: int = 3) -> Tensor:
    """The slope of -log(1 - F(mu)) against log mu, mu = r2 / r1 of each point, through the origin.

    Facco et al. 2017 ("Estimating the intrinsic dimension of datasets by a minimal neighborhood
    information"): of a locally uniform density mu has the law F = 1 - mu^-dim whatever the density. The
    tenth of the points with the greatest mu is left out. In float64, as differences of near points
    need. From 0 up; of n random directions d - 1 when n is large, and much below it for the few tokens
    of a prompt in a high dimension: compare with as many random ones. Standard error about
    dim / sqrt(.9 n).

    Args:
        x: [..., n, d] states or unit vectors.
        mask: [..., n] True where a point counts.
        fewest: different points, at least 3.

    Returns:
        [...]; NaN of fewer different points, or where all are equally far.
    """
    if x.shape[-2] < 3:
        return x.new_full(x.shape[:-2], torch.nan, dtype=working_dtype(x))
    points = filled(x, mask).double()
    left = without_duplicates(points, mask)
    two = torch.cat(
        [near.topk(2, dim=-1, largest=False).values for _, near in _distances(points, left)], dim=-2
    )
    log_mu = (two[..., 1] / two[..., 0]).log() / 2  # of squares
    slope = _slope(log_mu.masked_fill(~left, torch.inf), left).to(working_dtype(x))
    return or_nan(slope, left.sum(-1) >= fewest)


def without_duplicates(x: Tensor, mask: Tensor) -> Tensor:
    """[..., n] the mask without points that stand where an earlier one does, to float64's rounding.

    A point whose nearest is at distance 0 has no ratio of distances, and prompts repeat tokens.
    """
    earlier = []
    for rows, near in _distances(filled(x, mask).double(), mask):
        below = torch.ones_like(near, dtype=torch.bool).tril(rows.start - 1)
        earlier.append(((near == 0) & below).any(-1))
    return mask & ~torch.cat(earlier, dim=-1)


def _distances(points: Tensor, mask: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances a block of rows at a time, infinite from and to what does not count and self."""
    n = counts(mask, points).clamp(min=1)[..., None, None]
    centred = filled(points - points.sum(-2, keepdim=True) / n, mask)
    square = centred.square().sum(-1)
    for rows, products in cosine_blocks(centred):
        lengths = square[..., rows, None] + square[..., None, :]
        near = lengths - 2 * products
        near = near.masked_fill_(near <= SAME * lengths, 0.0)
        near.masked_fill_(~(mask[..., rows, None] & mask[..., None, :]), torch.inf)
        near.diagonal(offset=rows.start, dim1=-2, dim2=-1).fill_(torch.inf)
        yield rows, near


def _slope(log_mu: Tensor, mask: Tensor) -> Tensor:
    n = counts(mask, log_mu)[..., None]
    x = log_mu.sort(dim=-1).values
    rank = torch.arange(1, x.shape[-1] + 1, device=x.device)
    kept = (rank <= KEPT * n) & (n > 2)
    x = x.masked_fill(~kept, 0.0)
    y = -torch.log1p(-(rank / n.clamp(min=1))).masked_fill(~kept, 0.0)
    return or_nan((x * y).sum(-1) / x.square().sum(-1), (x > 0).any(-1))

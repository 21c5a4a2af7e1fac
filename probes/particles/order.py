"""How far tokens point the same way: order parameter and mean cosine, in O(n d)."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.particles.sets import counts, filled, or_nan

__all__ = [
    "cosine_from_sum",
    "debiased_order",
    "mean_cosine",
    "order_from_sum",
    "order_parameter",
]


def order_parameter(u: Tensor, mask: Tensor) -> Tensor:
    """||S|| / n with S = sum u_i: the length of the mean direction, r.

    Kuramoto 1975; Geshkovski et al. 2025 ("A mathematical perspective on Transformers"). From 0 to 1;
    1 when all tokens point one way. Of n random directions about 1 / sqrt(n), so that short prompts
    look ordered: lead with `mean_cosine`, or take `debiased_order`.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of no tokens, 1 of a single one.
    """
    total = filled(u, mask).sum(-2)
    return order_from_sum(total, counts(mask, total))


def order_from_sum(total: Tensor, n: Tensor) -> Tensor:
    """`order_parameter` from S [..., d] and how many tokens it sums, [...]."""
    length: Tensor = torch.linalg.vector_norm(total, dim=-1)
    return length / n


def mean_cosine(u: Tensor, mask: Tensor) -> Tensor:
    """(||S||^2 - n) / (n (n - 1)) with S = sum u_i: the mean of <u_i, u_j> over pairs i != j.

    Ethayarajh 2019 (self-similarity, anisotropy). From -1 / (n - 1) to 1; of n random directions 0,
    give or take sqrt(2 / (n (n - 1) d)).

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of fewer than two tokens.
    """
    total = filled(u, mask).sum(-2)
    return cosine_from_sum(total, counts(mask, total))


def cosine_from_sum(total: Tensor, n: Tensor) -> Tensor:
    """`mean_cosine` from S [..., d] and how many tokens it sums, [...]."""
    return or_nan((total.square().sum(-1) - n) / (n * (n - 1)), n > 1)


def debiased_order(r: Tensor, n: Tensor) -> Tensor:
    """sqrt(max(0, (n r^2 - 1) / (n - 1))): the order parameter less what chance gives n tokens.

    E[r^2] of n directions drawn independently is rho^2 + (1 - rho^2) / n, rho the length of their
    expectation; this solves for rho. It is the square root of the mean cosine. From 0 to 1; 0 where
    r is not above the chance of n random directions.

    Args:
        r: [...] of `order_parameter`.
        n: [...] how many tokens it is of.

    Returns:
        [...]; NaN of fewer than two tokens.
    """
    square = (n * r.square() - 1) / (n - 1)
    return or_nan(square.clamp(min=0).sqrt(), n > 1)

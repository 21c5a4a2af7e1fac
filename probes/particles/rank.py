"""How far states are from all being one vector: the residual of rank collapse."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.particles.sets import counts, filled, or_nan

__all__ = ["composite_norm", "composite_residual", "relative_residual", "residuals"]


def composite_norm(x: Tensor, mask: Tensor) -> Tensor:
    """sqrt(||X||_1 ||X||_inf): greatest absolute column sum times greatest absolute row sum.

    Dong et al. 2021 ("Attention is not all you need"). From 0 up; of n random
    directions somewhat above sqrt(2 n / pi). What `composite_residual` is to be divided by.

    Args:
        x: [..., n, d] states or unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; 0 of no tokens.
    """
    return _composite(filled(x, mask))


def _composite(states: Tensor) -> Tensor:
    sizes = states.abs()
    return (sizes.sum(-2).amax(-1) * sizes.sum(-1).amax(-1)).sqrt()


def _residual(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R = X - 1 mean^T in the place of X, zeros where masked, [...] how many tokens count, and ||X||_F."""
    n, whole = counts(mask, states), _frobenius(states)
    mean = states.sum(-2, keepdim=True) / n.clamp(min=1)[..., None, None]
    return states.sub_(mean).mul_(mask[..., None].to(states.dtype)), n, whole


def _frobenius(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1))
    return length


def composite_residual(x: Tensor, mask: Tensor) -> Tensor:
    """sqrt(||R||_1 ||R||_inf) with R = X - 1 mean^T: Dong's residual, around the mean.

    Dong et al. 2021 ("Attention is not all you need: pure attention loses rank doubly exponentially
    with depth"): under pure attention it falls with its cube from layer to layer. From 0 (all states
    equal) up, in the states' own units; of n random directions nearly their `composite_norm`,
    somewhat above sqrt(2 n / pi).

    Args:
        x: [..., n, d] states or unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of no tokens, 0 of one.
    """
    residual, n, _ = _residual(filled(x, mask), mask)
    return or_nan(_composite(residual), n > 0)


def relative_residual(x: Tensor, mask: Tensor) -> Tensor:
    """||R||_F / ||X||_F = sqrt(1 - n ||mean||^2 / ||X||^2), R = X - 1 mean^T.

    From R itself, because the difference of the other form rounds at sqrt(eps) near collapse. From 0
    (all states equal) to 1 (a mean of 0); of n random directions sqrt(1 - 1 / n).

    Args:
        x: [..., n, d] states or unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of no tokens or of zeros alone.
    """
    residual, _, whole = _residual(filled(x, mask), mask)
    return _frobenius(residual) / whole


def residuals(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`relative_residual`, `composite_residual` and its share of `composite_norm`, of the same R."""
    states = filled(x, mask)
    norm = _composite(states)
    residual, n, whole = _residual(states, mask)
    composite = or_nan(_composite(residual), n > 0)
    return _frobenius(residual) / whole, composite, composite / norm

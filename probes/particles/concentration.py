"""How close tokens come to one another: nearest neighbours and coinciding pairs, self left out."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.particles.sets import counts, filled, or_nan, pair_blocks, working_dtype

__all__ = ["coinciding_pairs", "nearest_neighbour_cosine"]


def nearest_neighbour_cosine(u: Tensor, mask: Tensor) -> Tensor:
    """The mean over i of max over j != i of <u_i, u_j>.

    With self left in it would be 1 whatever the tokens do. From -1 / (n - 1) to 1; of n random
    directions about z / sqrt(d), z the normal quantile of 1 - .56 / n, while that is small: it grows with
    n, and prompts of unequal length are not to be compared.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of fewer than two tokens.
    """
    nearest = [
        cosines.masked_fill(~both, -torch.inf).amax(-1) for cosines, both in pair_blocks(u, mask)
    ]
    closest = filled(torch.cat(nearest, dim=-1)[..., None], mask)[..., 0]
    n = counts(mask, closest)
    return or_nan(closest.sum(-1) / n, n > 1)


def coinciding_pairs(u: Tensor, mask: Tensor, above: float = 0.999) -> Tensor:
    """The share of pairs i != j with <u_i, u_j> above `above`; strictly.

    The metastable clusters of Geshkovski et al. 2024 ("Dynamic metastability in the self-attention
    model") show as pairs that coincide. From 0 to 1; of n random directions 0.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.
        above: the cosine from which on tokens coincide.

    Returns:
        [...]; NaN of fewer than two tokens.
    """
    close = torch.zeros(mask.shape[:-1], dtype=torch.long, device=u.device)
    for cosines, both in pair_blocks(u, mask):
        close += ((cosines > above) & both).sum((-2, -1))
    n = mask.sum(-1)
    return or_nan(close.to(working_dtype(u)) / (n * (n - 1)), n > 1)

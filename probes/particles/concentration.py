"""How close tokens come to one another: nearest neighbours and coinciding pairs, self left out."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.particles.pairs import Block, taken
from probes.particles.sets import counts, filled, or_nan, working_dtype

__all__ = ["Coinciding", "Nearest", "coinciding_pairs", "nearest_neighbour_cosine"]


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
    return taken(u, mask, Nearest(u, mask))


class Nearest:
    """`nearest_neighbour_cosine` of a pass over pairs."""

    def __init__(self, u: Tensor, mask: Tensor) -> None:
        self._mask = mask
        self._closest = u.new_full(mask.shape, -torch.inf, dtype=working_dtype(u))

    def add(self, block: Block) -> None:
        """Take one more block: its rows' others, and among them its columns' others."""
        for places, axis in ((block.rows, -1), (slice(block.first, None), -2)):
            here = self._closest[..., places]
            torch.maximum(here, block.others.amax(axis), out=here)

    def value(self) -> Tensor:
        """[...]; NaN of fewer than two tokens."""
        closest = filled(self._closest[..., None], self._mask)[..., 0]
        n = counts(self._mask, closest)
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
    return taken(u, mask, Coinciding(u, mask, above))


class Coinciding:
    """`coinciding_pairs` of a pass over pairs."""

    def __init__(self, u: Tensor, mask: Tensor, above: float = 0.999) -> None:
        self._n, self._above, self._dtype = mask.sum(-1), above, working_dtype(u)
        self._close = torch.zeros_like(self._n)

    def add(self, block: Block) -> None:
        """Take one more block."""
        self._close += block.twice(block.others > self._above)

    def value(self) -> Tensor:
        """[...]; NaN of fewer than two tokens."""
        n = self._n
        return or_nan(self._close.to(self._dtype) / (n * (n - 1)), n > 1)

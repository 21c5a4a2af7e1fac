"""One pass over all pairs of tokens that feeds any number of measures of them.

Cosines are symmetric: blocks lie on and right of the diagonal, about 9/16 of the products of 512 tokens,
and stay in the cache while every measure takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from probes.particles.sets import filled, upper_blocks

__all__ = ["Block", "OfPairs", "over_pairs", "taken"]


@dataclass(frozen=True)
class Block:
    """Cosines of some rows' tokens with one another and with all later tokens.

    Attributes:
        rows: which tokens.
        cosines: [..., rows, n - rows.start]; zeros where masked.
        others: the same; -inf where masked and for a token with itself. To be left as it is.
    """

    rows: slice
    cosines: Tensor
    others: Tensor

    @property
    def first(self) -> int:
        """The first row and column."""
        return int(self.rows.start)

    def twice(self, true: Tensor) -> Tensor:
        """[...] over ordered pairs (i, j): how many of a block are True, what is right of it twice."""
        size = true.shape[-2]
        return true.sum((-2, -1)) + true[..., size:].sum((-2, -1))


class OfPairs(Protocol):
    """A measure that takes the blocks one by one."""

    def add(self, block: Block) -> None:
        """Take one more block."""

    def value(self) -> Tensor:
        """What all blocks say."""


def over_pairs(u: Tensor, mask: Tensor, *measures: OfPairs) -> None:
    """Give every block of cosines to each of the measures; u [..., n, d] with zeros where masked."""
    for rows, cosines in upper_blocks(u):
        apart = mask[..., rows, None] & mask[..., None, rows.start :]
        apart.diagonal(dim1=-2, dim2=-1).fill_(False)
        block = Block(rows, cosines, torch.where(apart, cosines, -torch.inf))
        for measure in measures:
            measure.add(block)


def taken(u: Tensor, mask: Tensor, measure: OfPairs) -> Tensor:
    """The value of a single measure; u with anything where masked."""
    over_pairs(filled(u, mask), mask, measure)
    return measure.value()

"""How many clusters there are, in effect: participation ratio, Vendi score, components."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.particles.pairs import Block, over_pairs, taken
from probes.particles.sets import (
    counts,
    filled,
    or_nan,
    row_slices,
    upper_blocks,
    working_dtype,
)

__all__ = [
    "Joined",
    "Participation",
    "Spectrum",
    "component_labels",
    "components",
    "participation_ratio",
    "vendi",
]


def _smaller(u: Tensor) -> Tensor:
    """U or U^T: the one whose Gram matrix is smaller, never larger than u; the eigenvalues are the same."""
    return u if u.shape[-2] <= u.shape[-1] else u.mT


def participation_ratio(u: Tensor, mask: Tensor) -> Tensor:
    """n^2 / ||U^T U||_F^2 = 1 / sum p^2, p the eigenvalues of U U^T / n.

    Vendi score of order 2 (Friedman and Dieng 2023; Pasarkar and Dieng 2024). From 1 (all tokens
    parallel) to min(n, d) (orthogonal). Of n random directions n d / (n + d - 1). For masses p on
    orthogonal axes it is 1 / sum p^2.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of no tokens.
    """
    found = Participation(u, mask)
    for rows, products in upper_blocks(_smaller(filled(u, mask))):
        found.add_products(rows, products)
    return found.value()


class Participation:
    """`participation_ratio` of a pass over pairs: ||U U^T||_F = ||U^T U||_F."""

    def __init__(self, u: Tensor, mask: Tensor) -> None:
        self._n = counts(mask, u.new_empty((), dtype=working_dtype(u)))
        self._square = torch.zeros_like(self._n)

    def add(self, block: Block) -> None:
        """Take one more block of cosines."""
        self.add_products(block.rows, block.cosines)

    def add_products(self, rows: slice, products: Tensor) -> None:
        """Take rows of a Gram matrix, of U or of U^T, from the diagonal on."""
        right = products[..., rows.stop - rows.start :]
        for part in (products, right):
            self._square += torch.linalg.vector_norm(part, dim=(-2, -1)).square()

    def value(self) -> Tensor:
        """[...]; NaN of no tokens."""
        return self._n.square() / self._square


def vendi(u: Tensor, mask: Tensor) -> Tensor:
    """Effective number exp H(p), p the eigenvalues of U U^T / n, H in nats.

    Friedman and Dieng 2023 ("The Vendi Score"). From 1 to min(n, d), never below the participation
    ratio. Of n random directions nearly min(n, d), less by a factor of about
    exp(-min(n, d) / (2 max(n, d))). For masses p on orthogonal axes it is exp H(p).
    One eigenvalue problem a set, min(n, d)^3: dear beside the participation ratio.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of no tokens.
    """
    side = _smaller(filled(u, mask))
    found = Spectrum(u, mask, side.shape[-2])
    for rows, products in upper_blocks(side):
        found.add_products(rows, products)
    return found.value()


class Spectrum:
    """`vendi` of a pass over pairs; keeps the Gram matrix, of `size` rows."""

    def __init__(self, u: Tensor, mask: Tensor, size: int) -> None:
        self._gram = u.new_zeros(*u.shape[:-2], size, size, dtype=working_dtype(u))
        self._n = counts(mask, self._gram)

    def add(self, block: Block) -> None:
        """Take one more block of cosines."""
        self.add_products(block.rows, block.cosines)

    def add_products(self, rows: slice, products: Tensor) -> None:
        """Take rows of the Gram matrix from the diagonal on."""
        self._gram[..., rows, rows.start :] = products

    def value(self) -> Tensor:
        """[...]; NaN of no tokens."""
        upper = self._gram / self._n.clamp(min=1)[..., None, None]
        share = torch.linalg.eigvalsh(upper, UPLO="U").clamp(min=0)
        return or_nan(torch.special.entr(share).sum(-1).exp(), self._n > 0)


def components(u: Tensor, mask: Tensor, threshold: float = 0.95) -> Tensor:
    """The number of connected components of the graph that joins tokens at a cosine above `threshold`.

    Single linkage cut at that cosine (Sibson 1973). From 1 to n; of n random directions n, at any
    threshold above their closest pair, about 2 sqrt(log(n) / d).

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.
        threshold: cosine above which two tokens are joined; strictly.

    Returns:
        [...]; NaN of no tokens.
    """
    return taken(u, mask, Joined(u, mask, threshold))


def component_labels(u: Tensor, mask: Tensor, threshold: float = 0.95) -> Tensor:
    """[..., n] the first token of each token's component (see `components`), -1 where masked.

    Roots hook onto the lowest root that their trees touch and paths are halved, all sets at once, until
    nothing changes (Shiloach and Vishkin 1982): about log2 n rounds. Keeps one byte a pair.
    """
    found = Joined(u, mask, threshold)
    over_pairs(filled(u, mask), mask, found)
    return found.labels()


class Joined:
    """`components` of a pass over pairs; keeps which pairs are joined."""

    def __init__(self, u: Tensor, mask: Tensor, threshold: float = 0.95) -> None:
        self._mask, self._threshold, self._dtype = mask, threshold, working_dtype(u)
        self._joined = mask.new_zeros(*mask.shape, mask.shape[-1])

    def add(self, block: Block) -> None:
        """Take one more block, and its mirror image below the diagonal."""
        joined = block.others > self._threshold
        self._joined[..., block.rows, block.first :] = joined
        self._joined[..., block.first :, block.rows] = joined.mT

    def labels(self) -> Tensor:
        """[..., n] of `component_labels`."""
        parent = torch.arange(self._mask.shape[-1], device=self._mask.device)
        parent = parent.expand(self._mask.shape).clone()
        while True:
            lowest = torch.minimum(parent, _lowest(self._joined, parent))
            hooked = parent.scatter_reduce(-1, parent, lowest, "amin")
            jumped = hooked.gather(-1, hooked)
            if torch.equal(jumped, parent):
                return parent.masked_fill(~self._mask, -1)
            parent = jumped

    def value(self) -> Tensor:
        """[...] how many tokens are the first of their component; NaN of no tokens."""
        labels = self.labels()
        own = torch.arange(labels.shape[-1], device=labels.device)
        return or_nan((labels == own).sum(-1).to(self._dtype), self._mask.any(-1))


def _lowest(joined: Tensor, label: Tensor) -> Tensor:
    """[..., n] the lowest label among a token's neighbours; n where it has none."""
    n = joined.shape[-1]
    narrow = torch.int16 if n < 2**15 else torch.int32  # a pass over all pairs: memory is its time
    here = label.to(narrow)[..., None, :]
    none = here.new_full((), n)
    lowest = [
        torch.where(joined[..., rows, :], here, none).amin(-1) for rows in row_slices(label.shape)
    ]
    return torch.cat(lowest, dim=-1).long()

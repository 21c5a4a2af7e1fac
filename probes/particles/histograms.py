"""One-dimensional laws: histograms of cosines and of projections on one direction."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.particles.pairs import Block, taken
from probes.particles.sets import counts, filled, or_nan, working_dtype

__all__ = [
    "BINS",
    "OfCosines",
    "centres",
    "cosine_histogram",
    "first_component",
    "histogram",
    "projection",
    "projection_histogram",
    "quantile",
]

BINS = 40  # of cosines in results: a twentieth each
COSINES = (-1.0, 1.0)


def centres(bins: int = BINS) -> list[float]:
    """The middles of equal bins of [-1, 1]."""
    return [round((2 * i + 1) / bins - 1, 12) for i in range(bins)]


def cosine_histogram(u: Tensor, mask: Tensor, bins: int = 100) -> Tensor:
    """The share of pairs i < j with their cosine in each of `bins` equal bins of [-1, 1].

    Cosines that round to just outside fall in the outermost bins. Of n random directions a bell around
    0 with a standard deviation of 1 / sqrt(d) (density (1 - c^2)^((d - 3) / 2)); metastable clusters
    show as a peak at 1 beside another (Geshkovski et al. 2024).

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.
        bins: how many.

    Returns:
        [..., bins], sum 1; NaN of fewer than two tokens.
    """
    return taken(u, mask, OfCosines(u, mask, bins))


class OfCosines:
    """`cosine_histogram` of a pass over pairs.

    All of a block is counted, which spares a pass over its mask: what is masked has the cosine 0, and is
    taken off in the end. One more bin is that of cosines of 1 or just above, and of tokens with themselves.
    """

    def __init__(self, u: Tensor, mask: Tensor, bins: int = BINS) -> None:
        self._n, self._bins, self._dtype = mask.sum(-1), bins, working_dtype(u)
        self._places = mask.shape[-1]
        sets = self._n.numel()
        self._total = torch.zeros(sets * (bins + 1), dtype=torch.long, device=u.device)
        first = torch.arange(sets, dtype=torch.int32, device=u.device) * (bins + 1)
        self._first = first.view(*self._n.shape, 1, 1)

    def add(self, block: Block) -> None:
        """Take one more block: pairs right of it stand for two."""
        half, size = self._bins / 2, block.cosines.shape[-2]
        shifted = torch.add(block.cosines.new_tensor(half), block.cosines, alpha=half)
        place = shifted.to(torch.int32).clamp_(0, self._bins)
        place.diagonal(dim1=-2, dim2=-1).fill_(self._bins)
        place.add_(self._first)
        for part, times in ((place[..., :size], 1), (place[..., size:], 2)):
            found = torch.bincount(part.flatten(), minlength=len(self._total))
            self._total += times * found

    def value(self) -> Tensor:
        """[..., bins], sum 1; NaN of fewer than two tokens."""
        total, n = self._total.view(*self._n.shape, self._bins + 1), self._n
        found = total[..., :-1].clone()
        pairs, every = n * (n - 1), self._places * (self._places - 1)
        found[..., -1] += total[..., -1] - self._places
        found[..., self._bins // 2] -= every - pairs
        share = found.to(self._dtype) / pairs[..., None]
        return or_nan(share, (n > 1)[..., None])


def quantile(share: Tensor, q: float) -> Tensor:
    """The cosine below which `q` of a histogram [..., bins] of [-1, 1] lies, as if even within each bin.

    Returns:
        [...], to the width of a bin; NaN of a histogram of NaN.
    """
    bins = share.shape[-1]
    total = share.cumsum(-1)
    at = (total < q).sum(-1, keepdim=True).clamp(max=bins - 1)
    here = share.gather(-1, at)
    inside = ((q - total.gather(-1, at) + here) / here).clamp(0, 1)
    return (2 * (at + inside) / bins - 1)[..., 0]


def projection_histogram(u: Tensor, mask: Tensor, direction: Tensor, bins: int = BINS) -> Tensor:
    """The share of tokens with their cosine with a direction in each of `bins` equal bins of [-1, 1].

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.
        direction: [..., d] as `projection` takes it.
        bins: how many.

    Returns:
        [..., bins], sum 1; NaN where there is no token or no direction.
    """
    places = projection(u, mask, direction)
    there = ~places.isnan()
    found = histogram(places.nan_to_num(0.0), there, bins, COSINES)
    return found.to(places.dtype) / there.sum(-1, keepdim=True)


def histogram(values: Tensor, mask: Tensor, bins: int, span: tuple[float, float]) -> Tensor:
    """How many values fall in each of `bins` equal bins; the outermost take what lies beyond.

    Args:
        values: [..., m].
        mask: [..., m] True where a value counts.
        bins: how many.
        span: the lowest and the highest edge.

    Returns:
        [..., bins] integers.
    """
    low, high = span
    place = (values - low).mul_(bins / (high - low)).clamp_(0, bins - 1)
    place = place.masked_fill_(~mask, bins).long()  # one more bin, for what does not count
    sets = values.shape[:-1]
    first = torch.arange(sets.numel(), device=values.device).view(sets)[..., None] * (bins + 1)
    found = torch.bincount((place + first).flatten(), minlength=sets.numel() * (bins + 1))
    return found.view(*sets, bins + 1)[..., :-1]


def projection(x: Tensor, mask: Tensor, direction: Tensor) -> Tensor:
    """<x_i, v> / ||v||: where each token stands on a direction.

    Of random directions u a standard deviation of 1 / sqrt(d).

    Args:
        x: [..., n, d] states or unit vectors.
        mask: [..., n] True where a token counts.
        direction: [..., d], fixed by the caller or of `first_component`; broadcast.

    Returns:
        [..., n]; NaN where masked.
    """
    states = filled(x, mask)
    direction = direction.to(states.dtype)
    unit = direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    return or_nan((states @ unit[..., None])[..., 0], mask)


def first_component(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The first principal component and its share of the variance, around the tokens' mean.

    Pearson 1901. The sign is the one that makes the component's largest entry positive. A share from
    1 / min(n - 1, d) to 1; of n random directions about (1 + sqrt(d / n))^2 / d.

    Args:
        x: [..., n, d] states or unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [..., d] of unit length and [...]; NaN where there is no variance.
    """
    states = filled(x, mask)
    n = counts(mask, states).clamp(min=1)[..., None, None]
    centred = filled(states - states.sum(-2, keepdim=True) / n, mask)
    wide = centred.shape[-2] <= centred.shape[-1]
    gram = centred @ centred.mT if wide else centred.mT @ centred
    values, vectors = torch.linalg.eigh(gram)
    top = vectors[..., -1:]
    axis = (centred.mT @ top if wide else top)[..., 0]
    largest = axis.gather(-1, axis.abs().argmax(-1, keepdim=True))
    axis = axis * largest.sign() / axis.norm(dim=-1, keepdim=True)
    total = values.sum(-1)
    # below this it is the rounding of the mean
    varies = total > (4 * torch.finfo(states.dtype).eps) ** 2 * states.square().sum((-2, -1))
    return or_nan(axis, varies[..., None]), or_nan(values[..., -1] / total, varies)

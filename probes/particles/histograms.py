"""One-dimensional laws: histograms of cosines and of projections on one direction."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.particles.sets import counts, filled, or_nan, pair_blocks, working_dtype

__all__ = ["cosine_histogram", "first_component", "histogram", "projection"]


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
    total = torch.zeros(*mask.shape[:-1], bins, dtype=torch.long, device=u.device)
    for cosines, both in pair_blocks(u, mask):  # each pair twice
        total += histogram(cosines.flatten(-2), both.flatten(-2), bins, (-1.0, 1.0))
    n = mask.sum(-1, keepdim=True)
    return total.to(working_dtype(u)) / (n * (n - 1))


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

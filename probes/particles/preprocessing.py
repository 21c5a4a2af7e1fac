"""From a model's states to unit vectors: what counts as a token, centring, and the unit norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from probes.particles.sets import filled

__all__ = ["Prepared", "prepare"]

SINK = 10.0  # times the median norm


@dataclass(frozen=True)
class Prepared:
    """States as particles.

    Attributes:
        u: [..., n, d] unit vectors; zeros where masked.
        mask: [..., n] True where a token counts.
        sinks: [...] tokens left out for a norm above `SINK` times the median.
        zeros: [...] tokens left out because they have no direction.
    """

    u: Tensor
    mask: Tensor
    sinks: Tensor
    zeros: Tensor


def prepare(
    x: Tensor,
    mask: Tensor,
    mean: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    sink: float = SINK,
) -> Prepared:
    """Unit vectors of states, less the mean of a held-out corpus, without attention sinks.

    Tokens with a norm above `sink` times the median of their set, taken before centring, are left out:
    a few of them decide every mean (Sun et al. 2024, "Massive activations"). So are states whose
    difference from the mean is zero to rounding. Both are counted. The mean of the set itself is no
    mean to give here: it makes the order parameter 0 by construction.

    Args:
        x: [..., n, d] states, of any floating dtype.
        mask: [..., n] True for tokens, False for pads and the beginning-of-sequence token.
        mean: [..., d] to subtract, such as a layer's mean over a corpus [layers, d]; broadcast.
        dtype: of the computation, float32 or float64.
        sink: times the median norm.

    Returns:
        The vectors with the mask of those that are left, and how many were left out.
    """
    states = filled(x.to(dtype), mask)
    norms = torch.linalg.vector_norm(states, dim=-1)
    sinks = mask & (norms > sink * _median(norms, mask)[..., None])
    states[sinks] = 0.0  # an infinite one would be NaN times 0, and with it every sum of its set
    scale = norms
    if mean is not None:
        mean = mean.to(dtype)
        states.sub_(mean[..., None, :])
        scale = norms + mean.norm(dim=-1)[..., None]
        norms = torch.linalg.vector_norm(states, dim=-1)
    # a difference this small is the rounding of its terms, and so is its direction
    zeros = mask & ~sinks & (norms <= 4 * torch.finfo(dtype).eps * scale)
    left = mask & ~sinks & ~zeros
    states.mul_(torch.where(left, 1 / norms, 0.0)[..., None])
    return Prepared(states, left, sinks.sum(-1), zeros.sum(-1))


def _median(norms: Tensor, mask: Tensor) -> Tensor:
    """[...] the (lower) median of the norms that count; NaN, above which nothing is, of none."""
    return norms.masked_fill(~mask, torch.nan).nanmedian(-1).values

"""The interaction energy that self-attention climbs, and the force on each token."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probes.particles.pairs import Block, taken
from probes.particles.sets import cosine_blocks, counts, filled, or_nan, working_dtype
from workbench.errors import SettingError

__all__ = [
    "Energy",
    "interaction_energy",
    "log_interaction_energy",
    "mean_field_force",
    "mean_force",
    "pattern_force",
    "tangent",
]


def _positive(beta: float) -> float:
    if not (math.isfinite(beta) and beta > 0):
        raise SettingError(f"beta {beta} is no inverse temperature: give a finite number above 0")
    return beta


def log_interaction_energy(u: Tensor, mask: Tensor, beta: float) -> Tensor:
    """The logarithm of `interaction_energy`: finite at every beta.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.
        beta: inverse temperature, above 0.

    Returns:
        [...] in nats; NaN of no tokens.
    """
    return taken(u, mask, Energy(u, mask, beta))


class Energy:
    """`log_interaction_energy` of a pass over pairs."""

    def __init__(self, u: Tensor, mask: Tensor, beta: float) -> None:
        self._beta, self._mask = _positive(beta), mask
        self._n = counts(mask, u.new_empty((), dtype=working_dtype(u)))
        self._total = torch.full_like(self._n, -torch.inf)

    def add(self, block: Block) -> None:
        """Take one more block: pairs right of it stand for two."""
        size = block.others.shape[-2]
        here = self._mask[..., block.rows]
        own = block.cosines.diagonal(dim1=-2, dim2=-1).masked_fill(~here, -torch.inf)
        exponents = block.others * self._beta
        exponents.diagonal(dim1=-2, dim2=-1).copy_(own * self._beta)
        exponents[..., size:] += math.log(2)
        self._total = torch.logaddexp(self._total, exponents.flatten(-2).logsumexp(-1))

    def value(self) -> Tensor:
        """[...] in nats; NaN of no tokens."""
        return or_nan(self._total - 2 * self._n.log() - math.log(2 * self._beta), self._n > 0)


def interaction_energy(u: Tensor, mask: Tensor, beta: float) -> Tensor:
    """E = 1 / (2 beta n^2) sum over i, j of exp(beta <u_i, u_j>), pairs i = j among them.

    Geshkovski et al. 2025 ("A mathematical perspective on Transformers"). It rises along the
    noise-free flow of self-attention with V = Q^T K = identity; greatest, e^beta / (2 beta), when all
    tokens coincide. Of n random directions about (e^beta / n + e^(beta^2 / 2d)) / (2 beta). Summed as
    logarithms; infinite only where E itself is beyond the dtype, and there `log_interaction_energy` is
    still finite.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.
        beta: inverse temperature, above 0.

    Returns:
        [...]; NaN of no tokens.
    """
    return log_interaction_energy(u, mask, beta).exp()


def tangent(u: Tensor, y: Tensor) -> Tensor:
    """P_u y = y - <y, u> u: the part of y along the sphere at u; [..., d] both."""
    return y - (y * u).sum(-1, keepdim=True) * u


def mean_field_force(u: Tensor, mask: Tensor, beta: float) -> Tensor:
    """P_{u_i} sum_j A_ij u_j with A = softmax_j(beta <u_i, u_j>): the velocity of self-attention.

    Geshkovski et al. 2025, equation (SA) with V = Q^T K = identity. Not A u - u, which does not vanish
    where the flow does. Lengths from 0 (a fixed point) to 1; of n random directions, at small beta,
    about 1 / sqrt(n).

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.
        beta: inverse temperature, above 0.

    Returns:
        [..., n, d]; zeros where masked.
    """
    vectors = filled(u, mask)
    beta, mixed = _positive(beta), []
    for _, cosines in cosine_blocks(vectors):
        scores = cosines.mul_(beta).masked_fill_(~mask[..., None, :], -torch.inf)
        mixed.append(scores.softmax(-1) @ vectors)
    return filled(tangent(vectors, torch.cat(mixed, dim=-2)), mask)


def mean_force(u: Tensor, mask: Tensor, beta: float) -> Tensor:
    """The mean length of `mean_field_force` over tokens: how fast self-attention would move them.

    Returns:
        [...], from 0 (a fixed point, or a single token) to 1; NaN of no tokens.
    """
    length: Tensor = torch.linalg.vector_norm(mean_field_force(u, mask, beta), dim=-1)
    n = counts(mask, length)
    return or_nan(length.sum(-1) / n, n > 0)


def pattern_force(u: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """P_{u_i} sum_j A_ij u_j for an attention pattern A that a model computed.

    As `mean_field_force` (same range), with `pattern` [..., n, n] in place of the softmax; entries of
    masked tokens count as 0.
    """
    vectors = filled(u, mask)
    weights = filled(pattern.to(vectors.dtype), mask).masked_fill(~mask[..., None, :], 0.0)
    return tangent(vectors, weights @ vectors)

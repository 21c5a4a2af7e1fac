"""Tokens as unit vector spins: magnetisation, its susceptibility over prompts, mean-field energy."""

from __future__ import annotations

from torch import Tensor

from probes.particles.sets import counts, filled, or_nan

__all__ = ["magnetisation", "spin_energy", "susceptibility"]


def magnetisation(u: Tensor, mask: Tensor) -> Tensor:
    """The mean spin m = S / n with S = sum u_i; its length is the order parameter.

    Stanley 1968 (vector spins). Lengths from 0 to 1, about 1 / sqrt(n) of n random directions.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [..., d]; NaN of no tokens.
    """
    total = filled(u, mask).sum(-2)
    return total / counts(mask, total)[..., None]


def susceptibility(m: Tensor, n: Tensor) -> Tensor:
    """The variance of the magnetisation over an ensemble of prompts, times n.

    chi = sum_b n_b ||m_b - M||^2 / (B - 1) with M = sum n_b m_b / sum n_b, over prompts b with tokens;
    with equal n_b it is n times the unbiased variance, summed over dimensions. The fluctuation form of
    a susceptibility at inverse temperature 1 (Stanley 1968), over prompts and not over time. From 0 up
    to about n; of random directions 1 in expectation, whatever n_b.

    Args:
        m: [B, ..., d] magnetisation of each prompt.
        n: [B, ...] how many tokens each is of.

    Returns:
        [...]; NaN of fewer than two prompts with tokens.
    """
    spins, weight = filled(m, n > 0), n.to(m.dtype)[..., None]
    mean = (weight * spins).sum(0) / weight.sum(0)
    apart = (weight * (spins - mean).square()).sum((0, -1))
    prompts = (n > 0).sum(0)
    return or_nan(apart / (prompts - 1), prompts > 1)


def spin_energy(u: Tensor, mask: Tensor) -> Tensor:
    """-||S||^2 / (2 n^2): the energy of a spin when every spin couples to every other with 1 / n.

    The Curie-Weiss vector model (Kac 1968), H / n with H = -sum over i, j of <u_i, u_j> / (2 n), pairs
    i = j among them. From -1/2 (all parallel) to 0; -1 / (2n) of n random directions. It is
    the limit of 1 / (2 beta) less the interaction energy at beta = 0: attention lowers it.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of no tokens.
    """
    return -magnetisation(u, mask).square().sum(-1) / 2

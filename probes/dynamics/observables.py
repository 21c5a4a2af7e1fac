"""What is looked at along a run: mean cosine, energy, clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.dynamics.sphere import unit
from probes.particles import order
from probes.particles.clusters import components

__all__ = ["clusters", "energy", "mean_cosine", "order_parameter"]


def order_parameter(x: Tensor) -> Tensor:
    """The length of the mean direction, r = ||sum_i u_i|| / n of tokens [..., n, d], 0 to 1.

    About 1/sqrt(n) for random directions.
    """
    return order.order_parameter(unit(x), _every(x))


def mean_cosine(x: Tensor) -> Tensor:
    """(||S||^2 - n) / (n (n - 1)), S the sum of the n unit vectors [..., n, d]; NaN for n = 1."""
    return order.mean_cosine(unit(x), _every(x))


def energy(x: Tensor, beta: float | Tensor) -> Tensor:
    """The interaction energy, E = 1/(2 beta n^2) sum_ij exp(beta (<u_i, u_j> - 1)) of tokens [..., n, d].

    In units of exp(beta): at most 1/(2 beta), which it has when all tokens are one. It rises along
    both kernels' flow: E' = 1/n sum_i ||x_i'||^2 for "usa", weighted by Z_i / n for "sa".
    """
    u = unit(x)
    wide = torch.as_tensor(beta, dtype=u.dtype, device=u.device)
    weights = (wide[..., None, None] * (u @ u.mT - 1)).exp()
    return weights.mean((-2, -1)) / (2 * wide)


def clusters(x: Tensor, cosine: float = 0.95) -> Tensor:
    """How many connected components the tokens [..., n, d] have when cosines above `cosine` connect."""
    return components(unit(x), _every(x), cosine).long()


def _every(x: Tensor) -> Tensor:
    """[..., n] a mask under which every token counts."""
    return torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)

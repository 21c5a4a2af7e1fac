"""What is looked at along a run: mean cosine, energy, clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.dynamics.sphere import unit

__all__ = ["clusters", "energy", "mean_cosine", "order_parameter"]


def order_parameter(x: Tensor) -> Tensor:
    """The length of the mean direction, r = ||sum_i u_i|| / n of tokens [..., n, d], 0 to 1.

    About 1/sqrt(n) for random directions.
    """
    r: Tensor = unit(x).mean(-2).norm(dim=-1)
    return r


def mean_cosine(x: Tensor) -> Tensor:
    """(||S||^2 - n) / (n (n - 1)), S the sum of the n unit vectors [..., n, d]; NaN for n = 1."""
    n = x.shape[-2]
    total = unit(x).sum(-2).square().sum(-1)
    return (total - n) / (n * (n - 1)) if n > 1 else torch.full_like(total, torch.nan)


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
    u = unit(x)
    near = u @ u.mT > cosine
    n = x.shape[-2]
    own = torch.arange(n, device=x.device)
    labels = own.expand(x.shape[:-1])
    while True:
        # Each token takes the least label among those it is connected to, until none changes.
        least = torch.where(near, labels[..., None, :], n).amin(-1).minimum(labels)
        if bool((least == labels).all()):
            return (labels == own).sum(-1)
        labels = least

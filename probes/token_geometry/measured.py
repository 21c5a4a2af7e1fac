"""Cosines of one prompt's tokens, their order, and their common low-dimensional picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probes.particles import order

__all__ = ["Sphere", "cluster_order", "cosines", "mean_cosine", "sphere", "units"]

COMPONENTS = 3
NEVER_ZERO = 1e-12


def units(states: Tensor) -> Tensor:
    """[..., d] states divided by their norms, float64; the zero state stays zero."""
    return torch.nn.functional.normalize(states.double(), dim=-1, eps=NEVER_ZERO)


def cosines(u: Tensor) -> Tensor:
    """[..., n, n] u_i . u_j of unit vectors [..., n, d]."""
    return u @ u.mT


def mean_cosine(u: Tensor) -> Tensor:
    """[...] mean cosine of pairs of different tokens (see `probes.particles.order.mean_cosine`).

    NaN of fewer than two. u is [..., n, d], of norm 1; a zero state, which has no direction, is left out.
    """
    return order.mean_cosine(u, u.any(-1))


def cluster_order(u: Tensor) -> Tensor:
    """[n] the rank of each token on an axis on which tokens of like direction are neighbours.

    Average linkage on 1 - cosine, its leaves ordered so that neighbours are as close as a tree
    allows (Bar-Joseph et al. 2001, scipy's `optimal_leaf_ordering`). u is [n, d], of norm 1.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    n = len(u)
    if n < 3:
        return torch.arange(n)
    apart = (1 - cosines(u)).clamp_min(0).cpu().numpy()
    np.fill_diagonal(apart, 0)
    tree = linkage(squareform(apart, checks=False), "average", optimal_ordering=True)
    rank = torch.empty(n, dtype=torch.long)
    rank[torch.from_numpy(leaves_list(tree).astype(np.int64))] = torch.arange(n)
    return rank


@dataclass(frozen=True)
class Sphere:
    """Unit vectors of all layers in the same three directions.

    Attributes:
        points: [layers, n, 3] coordinates; a point's distance from the origin is at most 1.
        captured: [layers] mean squared distance, the share of the directions that is shown.
    """

    points: Tensor
    captured: Tensor


def sphere(u: Tensor) -> Sphere:
    """The best three directions for all tokens of all layers at once, of unit vectors [layers, n, d].

    Principal directions about the origin, not about the mean: the mean direction is what the tokens
    share, and the sphere they lie on is about the origin. So sum ||P u||^2 is the largest that any
    three orthogonal directions have. Signs are such that each direction's sum is not negative.
    """
    flat = u.reshape(-1, u.shape[-1])
    best = _directions(flat)
    sign = torch.where((flat @ best).sum(0) < 0, -1.0, 1.0).to(best)
    points = u @ (best * sign)
    return Sphere(points, points.square().sum(-1).mean(-1))


def _directions(flat: Tensor) -> Tensor:
    """[d, 3] right singular vectors of [rows, d], the largest first; zeros beyond the rank's bound.

    By Lanczos' iteration, which is done before a wide model's full decomposition has begun.
    """
    rows, width = flat.shape
    if min(rows, width) <= COMPONENTS:
        vectors = torch.linalg.svd(flat, full_matrices=False).Vh
        return torch.nn.functional.pad(vectors, (0, 0, 0, COMPONENTS - len(vectors))).T
    from scipy.sparse.linalg import svds

    start = np.ones(min(rows, width))  # no chance in it
    _, values, found = svds(flat.cpu().numpy(), k=COMPONENTS, v0=start)
    order = values.argsort()[::-1].copy()
    return torch.from_numpy(found[order].copy()).T.to(flat)

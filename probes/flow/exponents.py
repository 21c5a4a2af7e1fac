"""How directions between states stretch from layer to layer: finite-depth Lyapunov exponents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.linalg import qr, vector_norm

__all__ = ["frame", "log_stretches", "tangent"]

Push = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, states [k, columns, d], directions [k, columns, d]) -> D block(x) v, [k, columns, d]."""


def tangent(directions: Tensor, states: Tensor) -> Tensor:
    """Directions without their part along each token's own state, P_u v = v - <u, v> u."""
    unit: Tensor = states / vector_norm(states, dim=-1, keepdim=True)
    return directions - (directions * unit).sum(-1, keepdim=True) * unit


def frame(states: Tensor, count: int, seed: int, *, radial: bool) -> Tensor:
    """[count, columns, d] orthonormal directions drawn at random at the states [columns, d].

    The same for equal seeds and shapes on every device.
    """
    source = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, *states.shape, generator=source, dtype=torch.float64).to(states)
    return _orthonormal(drawn if radial else tangent(drawn, states))[0]


def log_stretches(
    push: Push, states: Sequence[Tensor], count: int, *, seed: int = 0, radial: bool = False
) -> Tensor:
    """The log of the diagonal of R at each layer by Benettin's method; its mean over layers: the exponents.

    k directions at the embedding are carried through each block by its derivative, and made
    orthonormal again by QR; |R_jj| is by how much the j-th grew that the ones before do not span.
    Without `radial` a direction is a change of the tokens' directions u_i = x_i / ||x_i|| alone, their
    lengths held at the path's own: v -> P_u (J r v) / r', r and r' a token's lengths before and after.
    A block that only scales has exponents 0 then, and log of the factor with `radial`.

    Of a frame drawn at random and few layers: the first is the mean growth of a random direction, which
    comes to the largest exponent with depth. With as many directions as there are, they sum to log of
    the volume's growth whatever the frame.

    G. Benettin, L. Galgani, A. Giorgilli, J.-M. Strelcyn, Meccanica 15 (1980).

    Args:
        push: derivatives of the blocks.
        states: [columns, d] after each layer 0..L, of one prompt.
        count: k, of at most columns * (d - 1) directions, or columns * d with `radial`.
        seed: of the frame.
        radial: whether changes along the states count.

    Returns:
        [L, k] in nat.
    """
    directions, found = frame(states[0], count, seed, radial=radial), []
    for layer, (before, after) in enumerate(pairwise(states), start=1):
        directions = _carried(push, layer, before, after, directions, radial)
        directions, grown = _orthonormal(directions)
        found.append(grown)
    return torch.stack(found).log()


def _carried(
    push: Push, layer: int, before: Tensor, after: Tensor, directions: Tensor, radial: bool
) -> Tensor:
    repeated = before.expand(len(directions), *before.shape).contiguous()
    if radial:
        return push(layer, repeated, directions)
    old: Tensor = vector_norm(before, dim=-1, keepdim=True)
    new: Tensor = vector_norm(after, dim=-1, keepdim=True)
    return tangent(push(layer, repeated, directions * old), after) / new


def _orthonormal(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal directions of the same spans, and |R_jj| of each."""
    q, r = qr(directions.flatten(1).T)
    return q.T.reshape(directions.shape), r.diagonal().abs()

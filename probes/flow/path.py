"""The path that a token's state takes through the layers: how far, and how straight."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import cosine_similarity

__all__ = ["step_sizes", "straightness", "turns"]


def step_sizes(states: Tensor) -> Tensor:
    """||x_l - x_(l-1)|| / ||x_(l-1)||, how far each layer moves a state for its length.

    Args:
        states: [L + 1, ..., d] after each layer 0..L, float32 at least.

    Returns:
        [L, ...] of layers 1..L; not a number from a state that is zero.
    """
    moved = vector_norm(states.diff(dim=0), dim=-1)
    length = vector_norm(states[:-1], dim=-1)
    return torch.where(length > 0, moved / length, torch.nan)


def straightness(states: Tensor) -> Tensor:
    """||x_l - x_0|| / sum over k <= l of ||x_k - x_(k-1)||: 1 on a line, 0 back at the start.

    Equal steps at right angles to each other have 1 / sqrt(l).

    Returns:
        [L, ...] of layers 1..L; not a number where nothing has moved.
    """
    walked = vector_norm(states.diff(dim=0), dim=-1).cumsum(0)
    apart = vector_norm(states[1:] - states[0], dim=-1)
    return torch.where(walked > 0, apart / walked, torch.nan)


def turns(states: Tensor) -> Tensor:
    """The cosine between each layer's step and the one before: 1 straight on, 0 a right angle, -1 back.

    Returns:
        [L, ...] of layers 1..L; not a number at layer 1, and where a step is zero.
    """
    steps = states.diff(dim=0)
    cosines = cosine_similarity(steps[1:], steps[:-1], dim=-1, eps=0.0)
    first = torch.full_like(states[:1, ..., 0], torch.nan)
    return torch.cat([first, cosines])

"""Which keys the mask of attention lets a query see."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["visible_keys"]


def visible_keys(there: Tensor, position: Tensor, *, causal: bool, window: int | None) -> Tensor:
    """Whether each of N queries sees each key of its prompt.

    Args:
        there: [N, keys] whether the prompt has a token at that position (no padding).
        position: [N] of the queries in their prompts.
        causal: whether a query sees only itself and what is before it.
        window: how many tokens, itself the last, it sees; None for all that it may.

    Returns:
        [N, keys] bool.
    """
    behind = position[:, None] - torch.arange(there.shape[-1], device=there.device)
    seen = there & (behind >= 0) if causal else there.clone()
    return seen if window is None else seen & (behind < window)

"""Intervals over held-out groups: pairs join two groups, so that groups are resampled, not pairs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DRAWS", "intervals", "weights"]

DRAWS = 1000
ENDS = (0.025, 0.975)


def weights(base: Tensor, source: Tensor, seed: int) -> Tensor:
    """[draws, N] how often each pair counts when groups are drawn with replacement.

    A pair counts as often as its base's group times as often as its source's. Every quantity is to
    be resampled with the same weights, so that differences are paired.

    Intervals are wide rather than narrow: what varies from pair to pair alone is counted three times, so
    that where groups hardly come twice they are up to sqrt(3) as wide as they need be.

    Source: Owen 2007, "The pigeonhole bootstrap", arXiv 0712.1111.

    Args:
        base, source: [N] groups of each pair's two prompts.
    """
    groups, index = torch.unique(torch.cat([base, source]), return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(groups), (DRAWS, len(groups)), generator=generator)
    counts = torch.zeros(DRAWS, len(groups), dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    first, second = index.view(2, -1)
    return counts[:, first] * counts[:, second]


def intervals(values: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean over the last axis, and the ends of its 95% percentile interval.

    Args:
        values: [..., N] one number a pair.
        drawn: [draws, N] of `weights`.
    """
    wide = values.double()
    total = drawn.sum(-1)
    there = drawn[total > 0] / total[total > 0, None]
    resampled = wide @ there.T
    low, high = resampled.quantile(torch.tensor(ENDS, dtype=torch.float64), dim=-1)
    return wide.mean(-1), low, high

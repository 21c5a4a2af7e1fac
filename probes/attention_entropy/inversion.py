"""Entropy of softmax(beta s) over visible keys, its slope in beta, and the beta of a given entropy."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["effective_beta", "entropy", "entropy_slope", "log_softmax"]

DOUBLINGS = 60  # of the upper end: beta up to about 1e18 / spread of the scores
TIE = 64 * torch.finfo(torch.float64).eps  # of a score that is a product of some hundred numbers
CLOSE, ROUNDING = 1e-15, 4  # of a bracket, and of entropies
STEPS = 100  # bisection alone, from any bracket, is down to rounding after fewer


def log_softmax(scores: Tensor, beta: Tensor, seen: Tensor) -> Tensor:
    """Logarithms of p = softmax(beta s) over the visible keys; 0 where a key is not seen.

    Args:
        scores: [..., keys] s.
        beta: [...] inverse temperature, at least 0.
        seen: [..., keys] bool, at least one key of each.
    """
    logits = (beta[..., None] * scores).masked_fill(~seen, -torch.inf)
    return logits.log_softmax(-1).masked_fill(~seen, 0)


def entropy(scores: Tensor, beta: Tensor, seen: Tensor) -> Tensor:
    """[...] H = -sum_k p_k ln p_k in nat of p = softmax(beta s); arguments as `log_softmax`."""
    logs = log_softmax(scores, beta, seen)
    return -(_weights(logs, seen) * logs).sum(-1)


def entropy_slope(scores: Tensor, beta: Tensor, seen: Tensor) -> Tensor:
    """[...] dH/dbeta = -beta Var_p(s), never positive; arguments as `log_softmax`."""
    p = _weights(log_softmax(scores, beta, seen), seen)
    mean = (p * scores.masked_fill(~seen, 0)).sum(-1, keepdim=True)
    variance = (p * (scores - mean).masked_fill(~seen, 0) ** 2).sum(-1)
    return -beta * variance


def effective_beta(scores: Tensor, entropies: Tensor, seen: Tensor) -> Tensor:
    """The beta at which softmax(beta s) has a given entropy: 1 / its effective temperature.

    H falls from ln n at beta = 0 to ln m at infinity, m being the keys that tie for the largest
    score, and strictly so where scores differ; so beta is unique. Newton's step with the slope
    -beta Var_p(s), inside a bracket that bisection halves wherever the step would leave it.

    Args:
        scores: [..., keys].
        entropies: [...] in nat; broadcast against the scores' leading axes.
        seen: [..., keys] bool.

    Returns:
        [...] beta in 1 / (unit of s), float64: 0 for ln n, and NaN where no beta has that entropy
        (at most ln m: the scores' order is not sharp enough) or the entropy is NaN.
    """
    entropies = entropies.double()
    top = scores.double().masked_fill(~seen, -torch.inf).amax(-1, keepdim=True)
    shifted = (scores.double() - top).masked_fill(~seen, 0)
    tied = (shifted >= -TIE * top.abs()) & seen  # equal states, but for rounding
    shifted = shifted.masked_fill(tied, 0)
    ties = tied.sum(-1).double().log()
    most = seen.sum(-1).double().log()
    there = (entropies < most) & (entropies > ties)
    middle = (most + ties) / 2  # where no root is looked for, one that is found at once
    found = _root(shifted, torch.where(there, entropies, middle), seen)
    found = torch.where(there, found, torch.nan)
    return torch.where(entropies >= most, 0.0, found)


def _root(scores: Tensor, wanted: Tensor, seen: Tensor) -> Tensor:
    """Safeguarded Newton from the upper end of a bracket that holds the root, where there is one."""
    high = _upper_end(scores, wanted, seen)
    low, beta = torch.zeros_like(high), high / 2
    exact = ROUNDING * torch.finfo(beta.dtype).eps * (1 + wanted.abs())
    for _ in range(STEPS):
        excess = entropy(scores, beta, seen) - wanted
        low, high = torch.where(excess > 0, beta, low), torch.where(excess > 0, high, beta)
        step = beta - excess / entropy_slope(scores, beta, seen)
        new = torch.where((step > low) & (step < high), step, (low + high) / 2)
        going = (excess.abs() > exact) & (high - low > CLOSE * high)
        if not going.any():
            break
        beta = torch.where(going, new, beta)
    return beta


def _upper_end(scores: Tensor, wanted: Tensor, seen: Tensor) -> Tensor:
    """A beta with an entropy no larger than wanted, from 1 by doublings."""
    high = torch.ones_like(wanted)
    for _ in range(DOUBLINGS):
        short = entropy(scores, high, seen) > wanted
        if not short.any():
            break
        high = torch.where(short, 2 * high, high)
    return high


def _weights(logs: Tensor, seen: Tensor) -> Tensor:
    return logs.exp().masked_fill(~seen, 0)

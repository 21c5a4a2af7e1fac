"""The spins of many prompts, batch by batch: what of their magnetisation a susceptibility takes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from probes.particles.preprocessing import prepare
from probes.particles.sets import working_dtype
from probes.particles.spins import magnetisation
from probes.particles.states import SINKS, Drop, padded, tokens_that_count
from workbench.models.captures import Captures
from workbench.models.tokens import Tokens

__all__ = ["empty", "merged", "moments", "spins", "susceptibility_of"]

Moments = Mapping[str, Tensor]
"""Of prompts with tokens, [...] each, in float64:

- prompts: how many; tokens: sum_b n_b.
- mean: [..., d] M = sum_b n_b m_b / sum_b n_b.
- apart: sum_b n_b ||m_b - M||^2.
- length, energy: sum_b ||m_b|| and sum_b -||m_b||^2 / 2.
"""


def spins(
    captures: Captures, tokens: Tokens, drop: Drop, mean: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The magnetisation of each prompt at each layer, and of how many tokens it is.

    Args:
        captures: resid_post at every layer.
        tokens: of the model.
        drop: which tokens count.
        mean: [layers, d] to take off; nothing where None.

    Returns:
        m [prompts, layers, d], NaN of no tokens, and n [prompts, layers].
    """
    counted, found = tokens_that_count(captures, tokens, drop), []
    for i, layer in enumerate(captures.layers("resid_post")):
        x = padded(captures, layer)
        off = None if mean is None else mean[i]
        one = prepare(x, counted, off, sink=SINKS[drop], dtype=working_dtype(x))
        found.append((magnetisation(one.u, one.mask), one.mask.sum(-1)))
    vectors, sizes = zip(*found, strict=True)
    return torch.stack(vectors, 1), torch.stack(sizes, 1)


def empty(*shape: int, d: int) -> dict[str, Tensor]:
    """Moments of no prompts."""
    names = ("prompts", "tokens", "apart", "length", "energy")
    none = {name: torch.zeros(shape, dtype=torch.float64) for name in names}
    return {**none, "mean": torch.zeros(*shape, d, dtype=torch.float64)}


def moments(m: Tensor, n: Tensor) -> dict[str, Tensor]:
    """Moments of prompts along the first axis: m [prompts, ..., d] and n [prompts, ...]."""
    there, n = n > 0, n.double().cpu()
    vectors = torch.where(there[..., None], m.double(), 0.0).cpu()
    total = n.sum(0)
    mean = (n[..., None] * vectors).sum(0) / total.clamp(min=1)[..., None]
    square = vectors.square().sum(-1)
    return {
        "prompts": (n > 0).sum(0).double(),
        "tokens": total,
        "mean": mean,
        "apart": (n * (vectors - mean).square().sum(-1)).sum(0),
        "length": square.sqrt().sum(0),
        "energy": -square.sum(0) / 2,
    }


def merged(left: Moments, right: Moments) -> dict[str, Tensor]:
    """Moments of both sets of prompts, without the cancellation of sums of squares.

    Chan, Golub and LeVeque 1983: with N tokens each, apart = apart_l + apart_r +
    N_l N_r / (N_l + N_r) ||M_l - M_r||^2.
    """
    found = {name: left[name] + right[name] for name in left}
    share = right["tokens"] / found["tokens"].clamp(min=1)
    step = right["mean"] - left["mean"]
    found["mean"] = left["mean"] + share[..., None] * step
    found["apart"] += left["tokens"] * share * step.square().sum(-1)
    return found


def susceptibility_of(known: Moments) -> Tensor:
    """[...] as `susceptibility` of all prompts at once; NaN of fewer than two with tokens."""
    more = known["prompts"] > 1
    return torch.where(more, known["apart"] / (known["prompts"] - 1), torch.nan)

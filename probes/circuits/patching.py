"""Attribution patching: the first-order effect of every cell, from one gradient.

1. Run both sides and keep the sites' values.
2. Take the metric's gradient at the sites of the run that is patched into (plain), or its mean over
   runs whose embeddings lie between the two sides' (integrated).
3. A cell's effect is about gradient . (value that is put in - value that is there).

Sources: Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale"; Syed et al. 2023,
arXiv 2310.10348; the integral along the embeddings: Hanna et al. 2024, arXiv 2403.17806.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probes.causal.effects import Direction
from probes.circuits.pair import Pair, by_layer
from workbench.models.captures import Captures
from workbench.models.sites import SiteRequest

__all__ = ["Patched", "attributed", "path_nodes"]


@dataclass(frozen=True)
class Patched:
    """Effects of one prompt's cells.

    Attributes:
        effects: by site, [layers, samples, width]; of z [layers, samples, width, heads].
        base, source: [samples] scores of the run that is patched into, and of what is put in.
    """

    effects: dict[str, Tensor]
    base: Tensor
    source: Tensor


def attributed(pair: Pair, direction: Direction, sites: Sequence[str], steps: int) -> Patched:
    """Approximate effects of all cells at `sites`.

    Args:
        steps: points of the integral; 0 for the gradient at the base run.
    """
    parts = [_of_samples(pair, direction, sites, steps, rows) for rows in pair.chunks()]
    return Patched(
        {name: torch.cat([part.effects[name] for part in parts], 1) for name in sites},
        torch.cat([part.base for part in parts]),
        torch.cat([part.source for part in parts]),
    )


def _of_samples(
    pair: Pair, direction: Direction, sites: Sequence[str], steps: int, rows: slice
) -> Patched:
    base, source = pair.ends(direction, rows)
    there, source_scores = pair.read(source, list(sites))
    if steps == 0:
        slopes, here, base_scores = _slopes(pair, base, sites)
        gradients = {name: by_layer(slopes, name, pair.width) for name in sites}
    else:
        here, base_scores = pair.read(base, list(sites))
        gradients = _mean_slopes(pair, base, source, sites, steps)
    count = rows.stop - rows.start
    effects = {}
    for name in sites:
        put_in, own = (by_layer(side, name, pair.width) for side in (there, here))
        along = (gradients[name] * (put_in - own)).sum(-1)
        effects[name] = along.expand(-1, count, *along.shape[2:])
    return Patched(effects, base_scores.expand(count), source_scores.expand(count))


def _slopes(
    pair: Pair, states: Tensor, sites: Sequence[SiteRequest]
) -> tuple[Captures, Captures, Tensor]:
    """Gradients of each run's score at the sites, their values, and the scores."""
    noted: list[Tensor] = []
    slopes, values = pair.model.grad_and_values(
        pair.batch(len(states)), pair.total(noted), list(sites), at=pair.at, start=(0, states)
    )
    return slopes, values, noted[0]


def _mean_slopes(
    pair: Pair, base: Tensor, source: Tensor, sites: Sequence[str], steps: int
) -> dict[str, Tensor]:
    """Gradients at the sites, averaged along the straight way between two sides' embeddings."""
    found: dict[str, Tensor] = {}
    for share, weight in path_nodes(steps):
        slopes, _, _ = _slopes(pair, base + share * (source - base), sites)
        for name in sites:
            part = weight * by_layer(slopes, name, pair.width)
            found[name] = found[name] + part if name in found else part
    return found


def path_nodes(steps: int) -> list[tuple[float, float]]:
    """Points between 0 and 1 and their weights, which sum to 1, by the rule of Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return [(float(n), float(w)) for n, w in zip((nodes + 1) / 2, weights / 2, strict=True)]

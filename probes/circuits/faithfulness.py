"""How much of the whole effect a circuit keeps, beside circuits of as many edges drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from probes.circuits.nodes import Nodes
from probes.circuits.pair import Pair
from probes.circuits.run import circuits
from probes.tracing.measured import LEAST

__all__ = ["faithfulness", "random_orders", "sizes_up_to"]


def faithfulness(
    pair: Pair,
    nodes: Nodes,
    scores: Tensor,
    sizes: Sequence[int],
    control: Sequence[Tensor],
    ends: tuple[Tensor, Tensor],
    pace: Callable[[float], None],
) -> tuple[Tensor, Tensor]:
    """Share of the whole effect that circuits keep: (metric - corrupted) / (clean - corrupted).

    The circuit of k edges has those of the k largest scores by their absolute value; of all other edges the
    corrupted run's values are read. Metrics are means over the samples. 1 with every edge, 0 with none.

    Args:
        scores: [senders, receivers].
        sizes: numbers of edges.
        ends: mean metric of the clean and of the corrupted run.
        control: orders of the edges (see `random_orders`), each a control of every size.

    Returns:
        [sizes], and [sizes, controls]; NaN where the total effect is about 0.
    """
    orders = [_by_score(nodes, scores), *control]
    found = []
    for number, size in enumerate(sizes):
        kept = torch.stack([_first(nodes, order, size) for order in orders])
        found.append(circuits(pair, nodes, kept).mean(1))
        pace((number + 1) / len(sizes))
    clean, corrupted = ends
    whole = clean - corrupted
    share = (torch.stack(found) - corrupted) / whole
    share = torch.where(whole.abs() >= LEAST[pair.metric], share, torch.nan)
    return share[:, 0], share[:, 1:]


def _by_score(nodes: Nodes, scores: Tensor) -> Tensor:
    """The edges, as places in the flat table, the largest by absolute value first."""
    edges = nodes.edges.flatten().nonzero()[:, 0]
    sizes = scores.flatten().cpu()[edges].abs()
    return edges[sizes.argsort(descending=True, stable=True)]


def random_orders(nodes: Nodes, draws: int, seed: int) -> list[Tensor]:
    """The edges in random orders, the same for every prompt."""
    generator = torch.Generator().manual_seed(seed)
    edges = nodes.edges.flatten().nonzero()[:, 0]
    return [edges[torch.randperm(len(edges), generator=generator)] for _ in range(draws)]


def _first(nodes: Nodes, order: Tensor, size: int) -> Tensor:
    """[senders, receivers] the first edges of an order."""
    kept = torch.zeros(nodes.edges.numel(), dtype=torch.bool)
    kept[order[:size]] = True
    return kept.view(nodes.edges.shape)


def sizes_up_to(count: int) -> list[int]:
    """0, 1, 2, 5, 10, 20, 50, ... edges, and all of them.

    >>> sizes_up_to(30)
    [0, 1, 2, 5, 10, 20, 30]
    """
    steps = [step * 10**power for power in range(len(str(count))) for step in (1, 2, 5)]
    return [0, *(step for step in steps if step < count), count]

"""Which k units: telescope, swap, and, for k of 1 and 2, exhaustively over a shortlist.

Only "exhaustive" is optimal, and only over its shortlist: of least training loss among its subsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import torch
from torch import Tensor

from probes.sparse.rankers import top
from probes.sparse.solvers import Fit, fit_supports

__all__ = ["METHODS", "SERIES", "SHORTLIST", "Method", "Support", "supports"]

Method = Literal["telescope", "swap", "exhaustive"]
METHODS: tuple[Method, ...] = get_args(Method)
SERIES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64, 128, 256)
SHORTLIST = 50
MOST_EXHAUSTIVE = 2
MOST_SWAPS = 32


@dataclass(frozen=True)
class Support:
    """The units of one probe, and its fit over their standardised columns.

    Attributes:
        units: [k] column indices, ascending.
        weight: [k]; bias, loss: scalars.
    """

    units: Tensor
    weight: Tensor
    bias: Tensor
    loss: Tensor

    @classmethod
    def of(cls, units: Tensor, fit: Fit, row: int = 0) -> Support:
        """Row `row` of a fit whose columns are `units`."""
        order = units.argsort()
        return cls(units[order], fit.weight[row][order], fit.bias[row], fit.loss[row])

    def scores(self, scaled: Tensor) -> Tensor:
        """[n] logits of standardised activations [n, units]."""
        return scaled[:, self.units] @ self.weight + self.bias


def supports(
    scaled: Tensor,
    labels: Tensor,
    ranking: Tensor,
    ks: Sequence[int],
    *,
    method: Method = "telescope",
    c: float = 1.0,
    shortlist: int = SHORTLIST,
) -> dict[int, Support]:
    """The probe of each k.

    "telescope" (the paper's adaptive thresholding): the max(k) units of best rank are fitted, the next
    smaller k keeps those of largest |weight|, and so on down. "swap": from telescope's units, the one
    exchange with a unit of the shortlist that lowers the loss most, until none does. "exhaustive": of
    all subsets of the shortlist that of least loss, for k <= 2, and telescope's for larger ones.

    Args:
        scaled: [n, units] standardised training activations.
        labels: [n] 0 and 1.
        ranking: [units] a ranker's scores.
        ks: ascending.
        shortlist: how many units of best rank "swap" and "exhaustive" may take.
    """
    found = telescope(scaled, labels, ranking, ks, c=c)
    pool = top(ranking, min(shortlist, len(ranking)))
    if method == "swap":
        return {k: _swapped(scaled, labels, one, pool, c) for k, one in found.items()}
    if method == "exhaustive":
        small = {k: _exhaustive(scaled, labels, pool, k, c) for k in ks if k <= MOST_EXHAUSTIVE}
        return found | small
    return found


def telescope(
    scaled: Tensor, labels: Tensor, ranking: Tensor, ks: Sequence[int], *, c: float = 1.0
) -> dict[int, Support]:
    """Fit, keep the largest weights, fit again: see `supports`."""
    units = top(ranking, max(ks))
    found: dict[int, Support] = {}
    for k in sorted(ks, reverse=True):
        units = units[:k]
        found[k] = Support.of(units, fit_supports(scaled, units[None], labels, c=c))
        units = found[k].units[top(found[k].weight.abs(), k)]
    return dict(sorted(found.items()))


def _exhaustive(scaled: Tensor, labels: Tensor, pool: Tensor, k: int, c: float) -> Support:
    subsets = torch.tensor(list(combinations(pool.sort().values.tolist(), k)), device=pool.device)
    fit = fit_supports(scaled, subsets, labels, c=c)
    best = int(fit.loss.argmin())
    return Support.of(subsets[best], fit, best)


def _swapped(scaled: Tensor, labels: Tensor, start: Support, pool: Tensor, c: float) -> Support:
    best = start
    for _ in range(MOST_SWAPS):
        trials = _exchanges(best.units, pool)
        if not len(trials):
            return best
        fit = fit_supports(scaled, trials, labels, c=c)
        row = int(fit.loss.argmin())
        if fit.loss[row] >= best.loss:
            return best
        best = Support.of(trials[row], fit, row)
    return best


def _exchanges(units: Tensor, pool: Tensor) -> Tensor:
    """[k x others, k] the supports that differ in one unit, which comes of the pool."""
    others = pool[~torch.isin(pool, units)]
    k = len(units)
    trials = units.repeat(k, len(others), 1)
    trials[torch.arange(k), :, torch.arange(k)] = others.expand(k, -1)
    return trials.reshape(-1, k)

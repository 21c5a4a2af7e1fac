"""Family-wise p values: the greatest statistic of all units under permutations of whole groups.

Tokens of a document are not exchangeable, and permuting them passes any neuron that differs between
documents. Here groups exchange their sequences of labels as a whole: in an arrangement, group g has the
labels of group pi(g), in their order, begun again where g is longer and cut where it is shorter. Where
a feature is constant within groups, and where groups are equally long, this is exact; else it takes the
labels of a group for a stretch of a stationary sequence.

Where all groups have the same sequence of labels, as many with the feature as without (words, each in both
of its forms), exchanging them changes nothing. Each is then a matched pair, and an arrangement swaps the
two classes within some of the groups, each group as a whole: exact where, without a relation to the labels,
a group's two halves could change places.

The statistic of a unit is |r| sqrt(n), r the correlation of its activation with the arranged labels over
all n examples: one matrix product of arrangements x examples and examples x units. p is the share of
arrangements, the observed one among them, whose greatest statistic over all units of the family reaches
the unit's own; where a family has several features, each statistic is relative to its feature's usual
greatest one (see `p_values`).

Source: Westfall and Young 1993, "Resampling-Based Multiple Testing" (maxT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Arrangements", "chance", "max_t", "p_values", "statistics"]

PERMUTATIONS = 1000
UNITS = 4096  # at once
TIE = 1e-4  # of statistics, which are of order 1 to 100: sums of float32 products


@dataclass(frozen=True)
class Arrangements:
    """Permutations of the label sequences of groups, the identity first.

    Attributes:
        labels: [n] 0 and 1, group by group.
        start, size: [groups] where a group's labels begin, and how many there are.
        orders: [1 + permutations, groups] whose labels each group has.
        swaps: [1 + permutations, groups] 1 where a group's two classes change places.
    """

    labels: Tensor
    start: Tensor
    size: Tensor
    orders: Tensor
    swaps: Tensor

    @classmethod
    def draw(cls, labels: Tensor, groups: Tensor, permutations: int, seed: int = 0) -> Arrangements:
        """Of [n] labels with [n] group codes, each group's in their order."""
        random = torch.Generator().manual_seed(seed)
        size = torch.bincount(groups)
        draws = torch.rand(permutations, len(size), generator=random)
        own, labels = torch.arange(len(size)), labels[groups.argsort(stable=True)]
        pairs = _are_pairs(labels, size)
        orders = torch.cat([own[None], own.expand_as(draws) if pairs else draws.argsort(1)])
        swaps = torch.cat([own[None] < 0, (draws < 0.5) & pairs]).long()
        return cls(labels, size.cumsum(0) - size, size, orders, swaps)

    @property
    def swap(self) -> bool:
        """Whether classes change places within groups, in place of labels between groups."""
        return bool(self.swaps.any())

    def arranged(self, groups: Tensor, offsets: Tensor) -> Tensor:
        """[1 + permutations, m] the labels of m examples: the `offsets`-th of their `groups`."""
        return self._of(slice(None), groups, offsets)

    def _of(self, which: slice | int, groups: Tensor, offsets: Tensor) -> Tensor:
        of, swaps = self.orders[which][..., groups], self.swaps[which][..., groups]
        return self.labels[self.start[of] + offsets % self.size[of]] ^ swaps

    def says(self, groups: Tensor, offsets: Tensor) -> bool:
        """Whether any of them gives any of m examples another label than it has.

        None does where all groups have the same sequence of labels, and more of one class than of the
        other. Then there is no test: every p would be 1.
        """
        own = self._of(0, groups, offsets)
        return any(
            (self._of(one, groups, offsets) != own).any() for one in range(1, len(self.orders))
        )


def _are_pairs(labels: Tensor, size: Tensor) -> bool:
    """Whether groups all have the same sequence of labels, half of them of either class."""
    if (size != size[0]).any():
        return False
    rows = labels.reshape(len(size), -1)
    return bool((rows == rows[0]).all() and 2 * rows[0].sum() == size[0])


def statistics(sums: Tensor, positives: Tensor, n: int, mean: Tensor, spread: Tensor) -> Tensor:
    """[arrangements, units] |r| sqrt(n); 0 for a constant unit, or labels of one class.

    Args:
        sums: [arrangements, units] sum over the positives of an arrangement of the activations.
        positives: [arrangements] how many there are.
        n: examples.
        mean, spread: [units] mean and standard deviation of the activations of all examples.
    """
    share = (positives.double() / n)[:, None]
    deviation = (share * (1 - share)).sqrt() * spread * n**0.5
    covariance = sums.double() - positives.double()[:, None] * mean
    usable = deviation > 0
    return torch.where(usable, covariance / torch.where(usable, deviation, 1.0), 0.0).abs()


def p_values(families: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """[units] p values of each feature's layers and sites, adjusted over all units of all of them.

    A feature whose labels are much alike under every arrangement has great statistics under all of them.
    So that it does not hide the others, a feature's statistics are taken over the mean, of all
    arrangements and the observed one alike, of their greatest: what treats all arrangements alike leaves
    the test exact. Of one feature p values are those of the statistics themselves.

    Args:
        families: of each feature, [1 + permutations, units] statistics by layer or site; equally many
            permutations in each. Features are arranged one by one, which is conservative where they
            depend on each other.
    """
    most = torch.stack([torch.stack([one.amax(1) for one in own]).amax(0) for own in families])
    usual = most.mean(1).clamp(min=TIE)
    greatest = (most / usual[:, None])[:, 1:].amax(0).sort().values
    return [
        [_share(greatest, one[0] / of, TIE / float(of)) for one in own]
        for own, of in zip(families, usual, strict=True)
    ]


def _share(greatest: Tensor, observed: Tensor, tie: float = TIE) -> Tensor:
    reach = len(greatest) - torch.searchsorted(greatest, observed - tie)
    return (reach + 1).double() / (len(greatest) + 1)


def chance(arranged: Tensor, said: Tensor) -> tuple[float, float]:
    """The middle 95% of F1 where whole groups have exchanged their labels and predictions stay.

    What a probe that says as much, of groups as uneven, would have without a relation to the labels.

    Args:
        arranged: [permutations, n] labels of test examples, as arrangements give them.
        said: [n] whether an example is called positive.
    """
    hits = (arranged.bool() & said.bool()).sum(1).double()
    f1 = 2 * hits / (said.sum() + arranged.sum(1)).clamp(min=1)
    low, high = torch.quantile(f1, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def max_t(
    acts: Tensor, labels: Tensor, groups: Tensor, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> Tensor:
    """[units] p values of one feature from activations in memory.

    Args:
        acts: [n, units].
        labels, groups: [n] 0 and 1, and codes from 0.
    """
    drawn = Arrangements.draw(labels, groups, permutations, seed)
    order = groups.argsort(stable=True)
    offsets = torch.arange(len(groups)) - drawn.start[groups[order]]
    arranged = drawn.arranged(groups[order], offsets).to(acts)
    shift = acts.mean(0, dtype=torch.float64)
    found = [
        statistics(
            arranged @ part, arranged.sum(1), len(acts), part.double().mean(0), _spread(part)
        )
        for part in torch.split((acts - shift.to(acts))[order.to(acts.device)], UNITS, dim=1)
    ]
    observed = torch.cat([one[0] for one in found])
    most = torch.stack([one[1:].amax(1) for one in found]).amax(0)
    return _share(most.sort().values, observed)


def _spread(acts: Tensor) -> Tensor:
    """[units] standard deviations; 0 where it is the rounding of a constant."""
    spread = acts.double().std(0, correction=0)
    return torch.where(acts.amax(0) > acts.amin(0), spread, 0.0)

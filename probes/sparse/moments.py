"""Class moments of every unit, streamed: what rankers need, and none of the activations.

State: count [features, 2], mean and spread [features, 2, units], float64; spread is the sum of squared
deviations from the class's mean. Class 0 is "has not", class 1 "has". Batches and shards merge by Chan,
Golub and LeVeque 1979 ("Updating formulae and a pairwise algorithm for computing sample variances"),
so that a large mean costs no digits of a small variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["Moments"]

BLOCK = 256  # units at once: float64 copies of them stay small


@dataclass(frozen=True)
class Moments:
    """Counts, means and spreads by class.

    Attributes:
        count: [features, 2] examples.
        mean: [features, 2, units] of the activation; 0 where there is no example.
        spread: [features, 2, units] sum of (a - mean)^2.
    """

    count: Tensor
    mean: Tensor
    spread: Tensor

    @classmethod
    def empty(cls, features: int, units: int, device: torch.device | None = None) -> Moments:
        """Of no examples."""
        wide = torch.zeros(features, 2, units, dtype=torch.float64, device=device)
        count = torch.zeros(features, 2, dtype=torch.float64, device=device)
        return cls(count, wide, wide.clone())

    @classmethod
    def of(cls, acts: Tensor, labels: Tensor) -> Moments:
        """Of one batch.

        Args:
            acts: [N, units].
            labels: [features, N]: 1, 0, or -1 for what is no example of the feature.
        """
        member = torch.stack([labels == 0, labels == 1], dim=1).double()  # [features, 2, N]
        made = cls.empty(len(labels), acts.shape[1], acts.device)
        for start in range(0, acts.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            made._fill(block, acts[:, block], member)
        return made

    def _fill(self, block: slice, acts: Tensor, member: Tensor) -> None:
        """Some units, of [N, units] and which class of which feature [features, 2, N] is whose."""
        shift = acts[0].double()  # an example: what is constant then has a spread of exactly 0
        centred = acts.to(torch.float64, copy=True).sub_(shift)
        count = member.sum(-1)
        mean = (member @ centred) / count.clamp(min=1)[..., None]
        spread = (member @ centred.square_()) - count[..., None] * mean.square()
        self.count.copy_(count)
        self.mean[..., block] = torch.where((count > 0)[..., None], mean + shift, 0.0)
        self.spread[..., block] = spread.clamp_(min=0)

    def merge(self, other: Moments) -> Moments:
        """Of both together."""
        count = self.count + other.count
        share = (other.count / count.clamp(min=1))[..., None]
        apart = other.mean - self.mean
        between = apart.square() * share * self.count[..., None]
        return Moments(count, self.mean + apart * share, self.spread + other.spread + between)

    def state(self, name: str = "") -> dict[str, Tensor]:
        """As named tensors."""
        return {f"{name}{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], name: str = "") -> Moments:
        """What `state` gave."""
        return cls(*(state[f"{name}{field.name}"] for field in fields(cls)))

    def whole(self) -> tuple[Tensor, Tensor]:
        """[features, units] mean and standard deviation (of the population) over both classes."""
        count = self.count.sum(1)[:, None].clamp(min=1)
        mean = (self.count[..., None] * self.mean).sum(1) / count
        between = (self.count[..., None] * (self.mean - mean[:, None]).square()).sum(1)
        return mean, ((self.spread.sum(1) + between) / count).sqrt()

    def mean_difference(self) -> Tensor:
        """[features, units] mean of those that have the feature, less that of those that have not."""
        return self.mean[:, 1] - self.mean[:, 0]

    def f_statistic(self) -> Tensor:
        """[features, units] F of a one-way analysis of variance, two groups.

        0 for a constant unit; infinite where each class is constant and they differ.
        """
        n0, n1 = self.count[:, :1], self.count[:, 1:]
        between = self.mean_difference().square() * n0 * n1 / (n0 + n1)
        within = self.spread.sum(1) / (n0 + n1 - 2)
        return torch.where(between == 0, 0.0, between / within)

"""A subspace that is fitted so that an interchange in it gives the counterfactual answer (DAS)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from probes.interchange.levels import Level
from probes.interchange.subspaces import moved

__all__ = ["Fit"]


@dataclass(frozen=True)
class Fit:
    """How a rotation is fitted: Adam on the columns of an orthogonally parametrised matrix.

    The loss is -log p(wanted answer) over the vocabulary, in nat, averaged over a batch of pairs.

    Source: Geiger, Wu, Potts, Icard and Goodman 2024, "Finding alignments between interpretable
    causal variables and distributed neural representations", arXiv 2303.02536.

    Attributes:
        k: dimensions.
        epochs: passes over the training pairs.
        rate: Adam's learning rate.
        seed: of the first basis and of the order of the pairs.
        batch: pairs of a step.
        eps: Adam's. Turning B within its span changes nothing, so that such slopes are rounding alone
            (1e-7 in float32), of which Adam's usual 1e-8 would make steps as large as any other.
    """

    k: int
    epochs: int
    rate: float
    seed: int
    batch: int = 64
    eps: float = 1e-5

    def basis(
        self, level: Level, base: Tensor, source: Tensor, wanted: Tensor
    ) -> tuple[Tensor, list[float]]:
        """[width, k] the fitted basis, and the mean loss of each epoch in nat.

        Args:
            base, source: [N] rows of the level's prompts.
            wanted: [N] the answer that each base is to be given.
        """
        values = level.values.to(torch.promote_types(level.values.dtype, torch.float32))
        own, other = values[base.to(values.device)], values[source.to(values.device)]
        turned, order = self._begin(values), np.random.default_rng(self.seed)
        descent = torch.optim.Adam(turned.parameters(), lr=self.rate, eps=self.eps)
        losses = []
        for _ in range(self.epochs):
            total = 0.0
            for part in torch.split(torch.as_tensor(order.permutation(len(base))), self.batch):
                with torch.enable_grad():
                    move = moved(own[part], other[part], turned.weight)
                loss, slope = level.slopes(base[part], move.detach(), wanted[part])
                descent.zero_grad()
                move.backward(slope / len(part))  # type: ignore[no-untyped-call]
                descent.step()
                total += loss
            losses.append(total / len(base))
        return turned.weight.detach(), losses

    def _begin(self, like: Tensor) -> nn.Linear:
        """A random basis, drawn on the CPU, the same on every device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            made = nn.Linear(self.k, like.shape[1], bias=False)
            orthogonal(made)
        return made.to(like)

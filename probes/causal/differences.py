"""The logit of a target less that of a foil from two rows of the unembedding, without the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.causal.metrics import Goal
from workbench.errors import UnsupportedError
from workbench.models.protocol import Model

__all__ = ["Difference"]


@dataclass(frozen=True)
class Difference:
    """The last step of a model along one direction for each row.

    Attributes:
        norm: the final norm.
        directions: [rows, d] the target's row of the unembedding less the foil's.
        offsets: [rows] of the biases.
    """

    norm: Callable[[Tensor], Tensor]
    directions: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, model: Model, goal: Goal) -> Difference | None:
        """Of rows scored on `goal`; None where logits are squashed after, or weights are no plain ones."""
        try:
            unembedding = model.weights.unembedding
        except UnsupportedError:
            return None
        if unembedding.capped:
            return None
        ids = goal.targets[:, -1], goal.foils
        wide = torch.promote_types(model.dtype, torch.float32)
        target, foil = (unembedding.rows(each).to(model.device, wide) for each in ids)
        offsets = torch.zeros_like(target[:, 0])
        if unembedding.bias is not None:
            bias = unembedding.bias.to(offsets)
            offsets = bias[ids[0]] - bias[ids[1]]
        norm, _ = model.weights.final_norm(target)
        return cls(norm, target - foil, offsets)

    def __call__(self, states: Tensor) -> Tensor:
        """[n, rows] of states [n * rows, d] after the last block."""
        normed: Tensor = self.norm(states).to(self.directions)
        rows = normed.view(-1, *self.directions.shape)
        return (rows * self.directions).sum(-1) + self.offsets

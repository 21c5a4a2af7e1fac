"""What every operation of the suite is given: a hooked model, and Hugging Face's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from workbench.conformance.answers import Answer, Answers, Site
from workbench.conformance.cells import Finding
from workbench.conformance.oracle import stack_of
from workbench.models.batch import Batch, Padding
from workbench.models.engine import Engine

__all__ = ["Case", "shaped"]


@dataclass(frozen=True)
class Case:
    """One model on one engine, against its oracle.

    Attributes:
        model: the hooked model.
        answers: Hugging Face's, on the same weights.
    """

    model: Engine
    answers: Answers

    @property
    def last(self) -> Site:
        """The logits."""
        return "logits", self.model.n_layers

    def batch(self, padding: Padding) -> Batch:
        """All prompts in one batch."""
        return self.model.batch(self.answers.prompts, padding)

    def at(self, site: str) -> Site:
        """`site` at the layer where edits and gradients are tried: its stack's middle block's."""
        prefix, name = stack_of(site)
        last = self.answers.oracle.n_layers(prefix)
        return site, {"embed": 0, "final_norm": last, "logits": last}.get(name, (last + 1) // 2)

    def logits(self, batch: Batch) -> Tensor:
        """[N, vocabulary] of an ordinary pass."""
        return self.model.capture(batch, ["logits"])[self.last]

    def compared(self, mine: Tensor, answer: Answer) -> Finding:
        """[N, ...] of the model against an answer."""
        theirs = shaped(answer.values, mine)
        return self.answers.tolerance.a_pass(mine, theirs, answer.moved)

    def alike(self, mine: Tensor, other: Tensor) -> Finding:
        """Logits of two passes of the model, [N, vocabulary]."""
        moved = self.answers.values(self.last).moved
        return self.answers.tolerance.a_pass(mine, other, moved)


def shaped(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """[T, ...] for each prompt as one [N, ...] tensor of the shape of `like`.

    Heads may lie side by side, and a pattern has zeros for the keys that only longer prompts have.
    """
    if parts[0].dim() == 3:
        width = like.shape[-1]
        parts = [pad(part, (0, width - part.shape[-1])) for part in parts]
    return torch.cat(list(parts)).reshape(like.shape)

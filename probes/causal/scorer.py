"""Scores of many patched runs together, each against its own prompt's clean run."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from probes.causal.metrics import Goal, Metric, scores

__all__ = ["Scorer"]


@dataclass(frozen=True)
class Scorer:
    """Scores of rows that repeat those of `goal`, against the clean run's logits.

    Attributes:
        clean: [prompts, tokens, vocabulary] logits, for KL.
    """

    metric: Metric
    goal: Goal
    clean: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """[n, rows] of logits [n * rows, tokens, vocabulary]."""
        rows = len(self.goal.targets)
        times = len(logits) // rows
        goal = Goal((), self.goal.targets.repeat(times, 1), self.goal.foils.repeat(times))
        clean = None
        if self.metric == "kl":
            clean = self.clean.repeat_interleave(rows // len(self.clean), 0).repeat(times, 1, 1)
        return scores(self.metric, logits, goal, clean).view(times, rows)

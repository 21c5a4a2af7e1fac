"""What a run is scored by: one number a row, from the logits where its target is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from workbench.aim import surprisal, with_answer
from workbench.errors import TargetError
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = [
    "LEAST",
    "METRICS",
    "UNITS",
    "Goal",
    "Metric",
    "require_goal",
    "scores",
    "settled_metric",
]

Metric = Literal["probability", "logprob", "logit_difference", "kl"]
METRICS: tuple[Metric, ...] = get_args(Metric)
UNITS: dict[str, str] = {
    "probability": "probability",
    "logprob": "nat",
    "logit_difference": "logit",
    "kl": "nat",
}

LEAST: dict[str, float] = {
    "probability": 1e-3,
    "logprob": 1e-2,
    "logit_difference": 1e-2,
    "kl": 1e-3,
}
"""Total effects below these are about 0: no share of them is given."""


CPU_ROWS = 8  # of logits that are scored at once: they stay in the processor's cache


@dataclass(frozen=True)
class Goal:
    """The tokens that rows are scored on, predicted at their last columns.

    A target of several tokens stands behind its prompt, but for its last token (see `with_answer`).

    Attributes:
        prompts: what is run, one a row.
        targets: [rows, tokens] ids; -1 where there is no target (only KL needs none).
        foils: [rows] ids; -1 where there is none.
    """

    prompts: tuple[EncodedPrompt, ...]
    targets: Tensor
    foils: Tensor

    @classmethod
    def of(cls, prompts: Sequence[EncodedPrompt], device: torch.device | str = "cpu") -> Goal:
        """The prompts' own targets, which have equally many tokens."""
        goals = [p.answer or (-1 if p.target is None else p.target,) for p in prompts]
        foils = [-1 if p.foil is None else p.foil for p in prompts]
        return cls(
            tuple(with_answer(p) if p.answer else p for p in prompts),
            torch.tensor(goals, device=device),
            torch.tensor(foils, device=device),
        )

    @property
    def tokens(self) -> int:
        """How many of the last columns predict the target."""
        return int(self.targets.shape[1])

    def repeated(self, samples: int) -> Goal:
        """Each row `samples` times, after each other."""
        return Goal(
            tuple(prompt for prompt in self.prompts for _ in range(samples)),
            self.targets.repeat_interleave(samples, 0),
            self.foils.repeat_interleave(samples, 0),
        )


def scores(metric: Metric, logits: Tensor, goal: Goal, clean: Tensor | None = None) -> Tensor:
    """[rows] the score of each row, float32 at least.

    probability: p(target), of several tokens their product; logprob: log p(target) in nat;
    logit_difference: logit of the target less that of the foil; kl: KL(clean || row) in nat over the
    vocabulary, summed over the columns (0 is best; lower is nearer to the clean run).

    Args:
        logits: [rows, tokens, vocabulary] at the last columns.
        goal: what is predicted there; of as many rows.
        clean: [rows, tokens, vocabulary] logits of the clean run, for kl.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if metric == "kl":
        assert clean is not None
        aim = log_softmax(clean.to(wide), -1)
        return (aim.exp() * (aim - log_softmax(wide, -1))).sum((-1, -2))
    if metric == "logit_difference":
        last = wide[:, -1]
        ids = torch.stack([goal.targets[:, -1], goal.foils], 1)
        target, foil = last.gather(1, ids).unbind(1)
        return target - foil
    flat, ids = wide.flatten(0, 1), goal.targets.flatten()[:, None]
    size = CPU_ROWS if flat.device.type == "cpu" else len(flat)
    parts = zip(torch.split(flat, size), torch.split(ids, size), strict=True)
    lost = torch.cat([surprisal(*part) for part in parts])
    total = -lost.view(goal.targets.shape).sum(1)
    return total.exp() if metric == "probability" else total


def settled_metric(
    metric: str, prompts: Sequence[Prompt], otherwise: Metric = "probability"
) -> str:
    """What "auto" is for these prompts: the logit difference where every one has a foil.

    Args:
        otherwise: the metric where one has none; the reference's by default.
    """
    if metric != "auto":
        return metric
    return "logit_difference" if all(prompt.foil is not None for prompt in prompts) else otherwise


def require_goal(prompt: EncodedPrompt, metric: str, who: str) -> None:
    """Refuse a prompt that cannot be scored by `metric`.

    Args:
        metric: one of `METRICS`.
        who: the instrument's name, for the error.

    Raises:
        TargetError: no target, or no foil, or one that is the target.
    """
    name = f"{who}: prompt {prompt.text[:40]!r}"
    if metric != "kl" and prompt.target is None and not prompt.answer:
        raise TargetError(f"{name} has no target: give one, or metric=kl, which needs none")
    if metric != "logit_difference":
        return
    if prompt.foil is None:
        raise TargetError(f"{name} has no foil: give one, or metric=logprob or probability")
    if prompt.foil == prompt.target:
        raise TargetError(
            f"{name} has the same token as target and foil, {prompt.prompt.foil!r}: give another foil"
        )

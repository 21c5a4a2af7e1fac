"""Clean and corrupted inputs of prompts of one length: what causal effects are measured between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.causal.corruption import counterfactual, first_difference, noise
from probes.causal.metrics import Goal
from workbench.models.batch import Batch
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

__all__ = ["Contrast", "alike"]


@dataclass(frozen=True)
class Contrast:
    """Prompts of one length with their clean and their corrupted states before block 1.

    Attributes:
        goal: what each prompt is scored on.
        batch: the prompts, each with its target behind it where that has several tokens.
        clean: [prompts, 1, width, d].
        corrupted: [prompts, samples, width, d]; of another width where there is `other`.
        same: how many of the first columns are the same in both, in every prompt.
        other: the corrupted prompts, where they have another length.
    """

    goal: Goal
    batch: Batch
    clean: Tensor
    corrupted: Tensor
    same: int
    other: Batch | None = None

    @classmethod
    def by_noise(
        cls, model: Model, prompts: Sequence[EncodedPrompt], *, std: float, samples: int, seed: int
    ) -> Contrast:
        """Gaussian noise on the token embeddings of each subject, the same draws for every cell."""
        goal = Goal.of(prompts, model.device)
        batch = model.batch(goal.prompts)
        width, d_embed = batch.ids.shape[1], model.embedding.shape[1]
        shifts = [noise(p, width, samples, std, d_embed, seed) for p in prompts]
        repeated = model.batch(goal.repeated(samples).prompts)
        corrupted = model.embedded(repeated, torch.cat(shifts).to(model.device))
        return cls(
            goal,
            batch,
            model.embedded(batch)[:, None],
            corrupted.view(len(prompts), samples, width, -1),
            min(prompt.subject[0] for prompt in prompts),
        )

    @classmethod
    def by_text(cls, model: Model, prompts: Sequence[EncodedPrompt], who: str) -> Contrast:
        """Each prompt's corrupted text in its place; a target of several tokens behind both.

        Raises:
            PromptError: a prompt without one, or of another length.
        """
        others = [counterfactual(model, prompt, who) for prompt in prompts]
        return cls.between(model, prompts, others)

    @classmethod
    def between(
        cls, model: Model, prompts: Sequence[EncodedPrompt], others: Sequence[EncodedPrompt]
    ) -> Contrast:
        """Prompts of one length, and in their places others of one length, maybe another one."""
        goal = Goal.of(prompts, model.device)
        batch, other = model.batch(goal.prompts), model.batch(Goal.of(others).prompts)
        equal = batch.ids.shape == other.ids.shape
        firsts = [first_difference(*both) for both in zip(prompts, others, strict=True)]
        return cls(
            goal,
            batch,
            model.embedded(batch)[:, None],
            model.embedded(other)[:, None],
            min(firsts),
            None if equal else other,
        )

    @classmethod
    def by_embeddings(cls, model: Model, prompt: EncodedPrompt, corrupted: Tensor) -> Contrast:
        """Given states before block 1 in the prompt's place, [samples, width, d]."""
        goal = Goal.of([prompt], model.device)
        batch = model.batch(goal.prompts)
        clean = model.embedded(batch)[:, None]
        given = corrupted.to(clean)[None]
        differ = (given != clean).flatten(0, 1).any(-1).any(0)
        same = int(differ.int().argmax()) if bool(differ.any()) else given.shape[2]
        return cls(goal, batch, clean, given, same)

    @property
    def samples(self) -> int:
        """How many corrupted runs each prompt has."""
        return int(self.corrupted.shape[1])

    @property
    def width(self) -> int:
        """How many columns the clean run has."""
        return int(self.batch.ids.shape[1])

    @property
    def batches(self) -> tuple[Batch, Batch]:
        """What the clean and the corrupted runs are run as."""
        return self.batch, self.batch if self.other is None else self.other


def alike(prompts: Sequence[EncodedPrompt], most: int) -> list[list[int]]:
    """Indices of prompts that can share a contrast: of one length, with equally long targets.

    Args:
        most: tokens in a group; one prompt may have more.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault((len(prompt), len(prompt.answer)), []).append(index)
    return [
        those[start : start + size]
        for (length, _), those in groups.items()
        for size in [max(1, most // length)]
        for start in range(0, len(those), size)
    ]

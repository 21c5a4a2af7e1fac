"""The surprisal of a batch's tokens, those of each class together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from probes.steering.going_on import labels_at, labels_by_prompt
from workbench.aim import Aim, require_target, surprisal
from workbench.errors import PromptError
from workbench.models.batch import Batch, Places
from workbench.models.edits import Edit
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

__all__ = ["Losses"]

What = Literal["tokens", "answer"]


@dataclass(frozen=True)
class Losses:
    """Which tokens are predicted where, and of which class they are.

    Attributes:
        batch: what is run.
        where: [N] the places that predict a token.
        wanted: [N] ids of the tokens.
        label: [N] 1 in class, 0 out of it; places of neither are left out.
    """

    batch: Batch
    where: Places
    wanted: Tensor
    label: Tensor

    @classmethod
    def require(cls, prompt: EncodedPrompt, what: What) -> None:
        """Refuse a prompt that has nothing to predict.

        Raises:
            TargetError: no target, where the answer is what counts.
            PromptError: one token alone.
        """
        if what == "answer":
            require_target(prompt)
        elif len(prompt) < 2:
            raise PromptError(
                f"prompt {prompt.text[:40]!r} has one token: expected a next one, whose loss to measure"
            )

    @classmethod
    def of(cls, model: Model, batch: Batch, feature: str, *, by_token: bool, what: What) -> Losses:
        """Of a batch."""
        whole = labels_by_prompt(model, batch.prompts, feature)
        if what == "answer":
            aim = Aim.of(model, batch, against_foil=False)
            batch, wanted = aim.batch, _answers(aim)
        else:
            wanted = _next(batch)
        labels = (
            labels_at(model, batch, feature)
            if by_token
            else torch.tensor(whole, device=batch.device)[:, None].expand_as(batch.ids)
        )
        places = batch.places("all")
        label, ids = labels[places.row, places.column], wanted[places.row, places.column]
        kept = (label >= 0) & (ids >= 0)
        parts = (places.row, places.position, places.token, places.column)
        return cls(batch, Places(*(part[kept] for part in parts)), ids[kept], label[kept])

    def run(
        self,
        model: Model,
        edits: Sequence[Edit] = (),
        start: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        """[rows, 2] mean surprisal of each prompt's tokens in class and out of it; NaN where none is."""
        caught = model.intervene(self.batch, edits, ("logits",), "all", start=start)
        whole = caught["logits", model.n_layers]
        every = torch.full(self.batch.ids.shape, -1, device=self.batch.device)
        every[caught.places.row, caught.places.column] = torch.arange(
            len(caught.places), device=every.device
        )
        logits = whole[every[self.where.row, self.where.column]]
        return self._sums(surprisal(logits, self.wanted[:, None])[:, 0]) / self.tokens

    @property
    def tokens(self) -> Tensor:
        """[rows, 2] how many tokens there are in class and out of it."""
        return self._sums(torch.ones_like(self.wanted, dtype=torch.float64))

    def _sums(self, values: Tensor) -> Tensor:
        at = 2 * self.where.row + (1 - self.label)
        empty = torch.zeros(2 * len(self.batch), dtype=torch.float64, device=values.device)
        return empty.index_add(0, at, values.double()).view(-1, 2)


def _next(batch: Batch) -> Tensor:
    """[rows, width] the token that comes next in each prompt; -1 where none does."""
    ids = torch.where(batch.mask.bool(), batch.ids, -1)
    return torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -1)], dim=1)


def _answers(aim: Aim) -> Tensor:
    """[rows, width] the token of the target that is predicted at each place; -1 elsewhere."""
    batch = aim.batch
    step = batch.position_ids - aim.first[:, None]
    inside = (step >= 0) & (step < aim.targets.shape[1]) & batch.mask.bool()
    ids = aim.targets.gather(1, step.clamp(0, aim.targets.shape[1] - 1))
    return torch.where(inside, ids, -1)

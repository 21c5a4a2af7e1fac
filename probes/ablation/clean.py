"""The clean run of a batch: its states, what is predicted where, and its own loss and score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from probes.causal.metrics import Goal, Metric, scores
from workbench.aim import surprisal
from workbench.models.batch import Batch
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

__all__ = ["Clean", "alike", "repeated"]

READOUT = 2**25  # logits that are held at once


@dataclass(frozen=True)
class Clean:
    """Prompts whose targets have equally many tokens, padded on the right, and their clean states.

    Attributes:
        lengths: tokens of each prompt, without those of the target that stand behind it.
        states: by layer 0..L [rows, width, d].
        mlp: by layer 1..L [rows, width, d] what the MLPs add; empty where nobody needs it.
    """

    model: Model
    metric: Metric
    goal: Goal
    batch: Batch
    lengths: tuple[int, ...]
    states: Sequence[Tensor]
    mlp: Sequence[Tensor]

    @classmethod
    def of(
        cls, model: Model, prompts: Sequence[EncodedPrompt], metric: Metric, *, mlp: bool
    ) -> Clean:
        """By one pass."""
        goal = Goal.of(prompts, model.device)
        batch = model.batch(goal.prompts)
        caught = model.capture(batch, ["resid_post", "mlp_out"] if mlp else ["resid_post"])
        empty = caught["resid_post", 0].new_zeros(*batch.ids.shape, model.d_model)
        found = {
            name: [caught.places.scatter(empty, caught[name, k]) for k in caught.layers(name)]
            for name in ("resid_post", "mlp_out")
        }
        lengths = tuple(map(len, prompts))
        return cls(model, metric, goal, batch, lengths, found["resid_post"], found["mlp_out"])

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def tokens(self) -> int:
        """How many tokens, padding counted, one pass of these prompts has."""
        return int(self.batch.ids.numel())

    def losses(self, final: Tensor) -> Tensor:
        """[cells, rows] mean surprisal in nat of the tokens of each prompt but its first.

        NaN for a prompt of one token. Float32 at least.

        Args:
            final: [cells, rows, width, d] states after the last block.
        """
        row, column, ids = self._predicted
        count = torch.bincount(row, minlength=len(self))
        found = self.model.embedding.new_zeros(len(final), len(self)).float()
        if final.dtype == torch.float64:
            found = found.double()
        states = final[:, row, column]
        parts = [
            surprisal(logits, ids.repeat(len(final))[where, None])[:, 0]
            for where, logits in self._read(states.flatten(0, 1))
        ]
        each = torch.cat(parts).view(len(final), -1) if len(row) else found[:, :0]
        return found.index_add(1, row, each.to(found)) / count

    def scored(self, final: Tensor) -> Tensor:
        """[cells, rows] the score of each prompt's target; states as for `losses`."""
        logits = self._answers(final)
        cells = len(final)
        logits = logits.transpose(0, 1).flatten(0, 1)  # the cells of each prompt, one after another
        clean = self._clean_logits.repeat_interleave(cells, 0) if self.metric == "kl" else None
        return scores(self.metric, logits, self.goal.repeated(cells), clean).view(-1, cells).T

    @cached_property
    def loss(self) -> Tensor:
        """[rows] of the clean run."""
        return self.losses(self.states[-1][None])[0]

    @cached_property
    def score(self) -> Tensor:
        """[rows] of the clean run."""
        return self.scored(self.states[-1][None])[0]

    @cached_property
    def _clean_logits(self) -> Tensor:
        return self._answers(self.states[-1][None])[0]

    def _answers(self, final: Tensor) -> Tensor:
        """[cells, rows, tokens, vocabulary] logits where the target is predicted."""
        ends = torch.tensor([len(p) for p in self.batch.prompts], device=final.device)
        steps = torch.arange(-self.goal.tokens, 0, device=final.device)
        columns = ends[:, None] + steps
        rows = torch.arange(len(self), device=final.device)[:, None]
        states = final[:, rows, columns]
        logits = torch.cat([part for _, part in self._read(states.flatten(0, 2))])
        return logits.view(*states.shape[:3], -1)

    def _read(self, states: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """[N, d] states -> logits of a part of them at a time."""
        size = max(1, READOUT // self.model.vocab_size)
        for begin in range(0, len(states), size):
            where = slice(begin, begin + size)
            yield where, self.model.readout(states[where])

    @cached_property
    def _predicted(self) -> tuple[Tensor, Tensor, Tensor]:
        """[N] row and column of every token that has one after it, and the id of that one."""
        places = [(r, c) for r, n in enumerate(self.lengths) for c in range(n - 1)]
        at = torch.tensor(places, dtype=torch.long, device=self.batch.device).view(-1, 2)
        row, column = at.unbind(1)
        return row, column, self.batch.ids[row, column + 1]


def repeated(batch: Batch, times: int) -> Batch:
    """The rows of a batch again and again, in order."""
    ids, mask, positions = (
        values.repeat(times, 1) for values in (batch.ids, batch.mask, batch.position_ids)
    )
    return Batch(batch.prompts * times, ids, mask, positions, batch.starts.repeat(times))


def alike(prompts: Sequence[EncodedPrompt]) -> list[list[int]]:
    """Rows whose targets have equally many tokens."""
    groups: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(max(1, len(prompt.answer)), []).append(row)
    return list(groups.values())

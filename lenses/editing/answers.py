"""Targets of one or several tokens: where each token is predicted, how likely it is, how it ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.aim import require_target, surprisal, with_answer
from workbench.models.batch import Places
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = ["Answer", "Scores", "Start", "scores"]

Start = tuple[int, Tensor]
"""A layer, and the states [rows, width, d] after it, to restart a pass from."""


@dataclass(frozen=True)
class Answer:
    """A prompt with all but the last token of an answer after it.

    Attributes:
        prompt: what is run; each token of the answer is predicted at one of its last positions.
        tokens: ids of the answer.
    """

    prompt: EncodedPrompt
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, encoded: EncodedPrompt) -> Answer:
        """The answer that is a prompt's target.

        Raises:
            TargetError: it has none.
        """
        require_target(encoded)
        if encoded.target is not None:
            return cls(encoded, (encoded.target,))
        return cls(with_answer(encoded), encoded.answer)

    @classmethod
    def to(cls, model: Model, text: str, target: str | int) -> Answer:
        """The answer `target` to another text."""
        return cls.of(model.encode(Prompt(text, target=target), long_targets=True))

    @property
    def positions(self) -> range:
        """Where its tokens are predicted."""
        return range(len(self.prompt) - len(self.tokens), len(self.prompt))

    def loss(self, logits: Tensor, where: Places) -> Tensor:
        """-log p(answer) in nat, of the logits [tokens, V] at its positions."""
        tokens = torch.tensor(self.tokens, device=logits.device)
        return surprisal(logits, tokens[:, None]).sum()


@dataclass(frozen=True)
class Scores:
    """Of each answer, on the CPU.

    Attributes:
        logprob: [N] log-probability of the whole answer in nat.
        rank: [N] the worst rank of its tokens (1 = best), each after the ones before it.
        top: [N] id of the most probable token where its first token is predicted.
    """

    logprob: Tensor
    rank: Tensor
    top: Tensor


@torch.no_grad()
def scores(model: Model, answers: Sequence[Answer], start: Start | None = None) -> Scores:
    """How likely each answer is, in one forward pass; answers to the same tokens share a row.

    Args:
        start: where to restart from, with the states of the answers' distinct rows; from the
            embedding where None.
    """
    rows = distinct(answers)
    width = max(len(answer.tokens) for answer in answers)
    batch = model.batch([answer.prompt for answer in rows.values()])
    at = slice(-width, None)
    caught = (
        model.capture(batch, ["logits"], at)
        if start is None
        else model.tail(batch, *start, positions=at)
    )
    logits = caught["logits", model.n_layers]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    place = {
        (row, position): index
        for index, (row, position) in enumerate(
            zip(caught.places.row.tolist(), caught.places.position.tolist(), strict=True)
        )
    }
    order = {ids: row for row, ids in enumerate(rows)}
    found = [
        _score(
            logits[[place[order[answer.prompt.ids], i] for i in answer.positions]], answer.tokens
        )
        for answer in answers
    ]
    return Scores(*(torch.stack(part).cpu() for part in zip(*found, strict=True)))


def distinct(answers: Sequence[Answer]) -> dict[tuple[int, ...], Answer]:
    """One answer for each sequence of tokens that has to be run, by these tokens."""
    found: dict[tuple[int, ...], Answer] = {}
    for answer in answers:
        found.setdefault(answer.prompt.ids, answer)
    return found


def _score(logits: Tensor, tokens: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability, rank and best first token, from the logits [tokens, V] of one answer."""
    ids = torch.tensor(tokens, device=logits.device)[:, None]
    own = logits.gather(1, ids)
    logprob = (own[:, 0] - logits.logsumexp(-1)).sum()
    rank = (logits > own).sum(-1).max() + 1
    return logprob, rank, logits[0].argmax()

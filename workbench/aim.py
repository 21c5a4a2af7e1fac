"""What a gradient is taken of: the loss of each prompt's target, at its own positions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from workbench.errors import TargetError, UnsupportedError
from workbench.models.batch import Batch, Places
from workbench.models.positions import Positions
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

__all__ = ["Aim", "require_target", "surprisal", "with_answer"]


@dataclass(frozen=True)
class Aim:
    """A batch with the target of each prompt, and where it is predicted.

    A target of several tokens is appended to its prompt but for the last, and each of its tokens has
    its loss where it is predicted.

    Attributes:
        batch: what is run.
        at: positions whose logits are wanted; some prompts may have more than they need.
        first: [rows] first position at which a token of the target is predicted.
        targets: [rows, tokens] ids of the target; -1 beyond its end.
        foils: [rows] ids of the foil; -1 where the loss is of the target alone.
    """

    batch: Batch
    at: Positions
    first: Tensor
    targets: Tensor
    foils: Tensor

    @classmethod
    def of(cls, model: Model, batch: Batch, *, against_foil: bool) -> Aim:
        """Aim at each prompt's own target.

        Args:
            batch: as the model runs it.
            against_foil: whether the loss is the logit of the foil less that of the target.

        Raises:
            UnsupportedError: a target of several tokens on a model of two stacks.
        """
        goals = [p.answer or (() if p.target is None else (p.target,)) for p in batch.prompts]
        foils = [p.foil if against_foil else None for p in batch.prompts]
        longest = max(map(len, goals))
        if longest > 1 and type(batch) is not Batch:
            raise UnsupportedError(
                f"{model.name}: a target of several tokens needs a text that it can be appended to: give "
                "a target of one token"
            )
        if longest > 1:
            batch = model.batch([with_answer(p) for p in batch.prompts])
        first = [len(p) - len(g) for p, g in zip(batch.prompts, goals, strict=True)]
        return cls(
            batch,
            "last" if longest == 1 else slice(min(first), None),
            torch.tensor(first, device=batch.device),
            _padded(goals, longest).to(batch.device),
            torch.tensor([-1 if foil is None else foil for foil in foils], device=batch.device),
        )

    def at_random(self, model: Model, seed: int) -> Aim:
        """The same with targets drawn at random, as many tokens; the same in every batch."""
        goals = [
            _drawn(prompt, [i for i in row if i >= 0], foil, model.vocab_size, seed)
            for prompt, row, foil in zip(
                self.batch.prompts, self.targets.tolist(), self.foils.tolist(), strict=True
            )
        ]
        targets = _padded(goals, self.targets.shape[1]).to(self.targets.device)
        return replace(self, targets=targets)

    def aimed(self, where: Places) -> Tensor:
        """[N] the token of the target that is predicted at each place; before them all, the first."""
        length = (self.targets >= 0).sum(-1)[where.row]
        step = (where.position - self.first[where.row]).clamp_min(0).minimum(length - 1)
        return self.targets[where.row, step]

    def losses(self, logits: Tensor, where: Places) -> Tensor:
        """[rows] of each prompt -log p(target), or the logit of the foil less that of the target.

        Args:
            logits: [N, vocabulary] at `at`.
            where: their places.
        """
        step = where.position - self.first[where.row]
        inside = (step >= 0) & (step < self.targets.shape[1])
        wanted = self.targets[where.row, step.clamp(0, self.targets.shape[1] - 1)]
        inside &= wanted >= 0
        rows, ids, row = logits[inside], wanted[inside, None], where.row[inside]
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        foil = self.foils[row, None]
        difference = rows.gather(1, foil.clamp_min(0)) - rows.gather(1, ids)
        each = torch.where(foil >= 0, difference, surprisal(rows, ids))[:, 0]
        return each.new_zeros(len(self.targets)).index_add(0, row, each)


def surprisal(logits: Tensor, ids: Tensor) -> Tensor:
    """[N, 1] -log p of the tokens ids [N, 1], float32 at least, to the last digit of a small one.

    As log(1 + e^(others - logit)): logsumexp - logit loses those digits, and with them the token's
    own part of the gradient.

    Args:
        logits: [N, vocabulary].
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    others = wide.scatter(1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    return -logsigmoid(wide.gather(1, ids) - others)


def require_target(prompt: EncodedPrompt, *, against_foil: bool = False) -> None:
    """Refuse a prompt without a target, or whose foil is missing or the same.

    Raises:
        TargetError: it is.
    """
    name = prompt.text[:40]
    if prompt.target is None and not prompt.answer:
        raise TargetError(f"prompt {name!r} has no target: give one, a gradient needs a loss")
    if not against_foil:
        return
    if prompt.foil is None:
        raise TargetError(f"prompt {name!r} has no foil: give one, or use loss=nll")
    if prompt.foil == prompt.target:
        raise TargetError(
            f"prompt {name!r}: target and foil are the same token {prompt.foil}, so their difference has "
            "no gradient: give another foil"
        )


def _padded(goals: Sequence[Sequence[int]], width: int) -> Tensor:
    """[rows, width] ids, -1 beyond the end of each row's."""
    return torch.tensor([[*goal, *[-1] * (width - len(goal))] for goal in goals])


def with_answer(prompt: EncodedPrompt) -> EncodedPrompt:
    """The prompt with its target after it, but for the last token, after which nothing is predicted."""
    more = prompt.answer[:-1]
    return replace(prompt, ids=prompt.ids + more, spans=prompt.spans + ((0, 0),) * len(more))


def _drawn(
    prompt: EncodedPrompt, goal: Sequence[int], foil: int, vocabulary: int, seed: int
) -> list[int]:
    """As many tokens as the target has, none of them its own or the foil's; the same in any batch."""
    key = hashlib.sha256(f"{seed} {prompt.text}".encode()).digest()
    random = Random(key)
    found: list[int] = []
    while len(found) < len(goal):
        token = random.randrange(vocabulary)
        found += [token] if token not in (*goal, foil) else []
    return found

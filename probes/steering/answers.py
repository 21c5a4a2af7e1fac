"""The answers of two classes of prompts, and how probable each class is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import PromptError
from workbench.models.tokens import EncodedPrompt

__all__ = ["Answers"]


@dataclass(frozen=True)
class Answers:
    """First tokens of the targets of prompts in class and out of it, without those that are in both.

    Attributes:
        inside, outside: ids, ascending.
        shared: how many were left out, being in both.
    """

    inside: tuple[int, ...]
    outside: tuple[int, ...]
    shared: int

    units: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"p_in": "probability", "p_out": "probability", "top_in": "share"}
    )

    @classmethod
    def of(cls, prompts: Sequence[EncodedPrompt], labels: Sequence[int], feature: str) -> Answers:
        """Of prompts with labels 1, 0, or -1.

        Raises:
            PromptError: a class has no prompt with a target, or no answer of its own.
        """
        found: dict[int, set[int]] = {0: set(), 1: set(), -1: set()}
        for prompt, label in zip(prompts, labels, strict=True):
            first = prompt.answer[0] if prompt.answer else prompt.target
            found[label] |= set() if first is None else {first}
        both = found[0] & found[1]
        for label, name in ((1, "that have"), (0, "that lack")):
            if not found[label] - both:
                raise PromptError(
                    f"steer: prompts {name} {feature!r} have no answers of their own: expected labelled "
                    "prompts of both classes with targets, whose first tokens tell the classes apart"
                )
        return cls(tuple(sorted(found[1] - both)), tuple(sorted(found[0] - both)), len(both))

    @property
    def said(self) -> str:
        """How many answers there are, in words."""
        return (
            f"Answers in class: {len(self.inside)} first tokens of targets; out of class: "
            f"{len(self.outside)}; {self.shared} in both were left out"
        )

    def scores(self, logits: Tensor) -> Tensor:
        """[3, N] p_in, p_out and top_in of logits [N, vocabulary]."""
        p = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
        inside, outside = (
            torch.tensor(one, device=p.device) for one in (self.inside, self.outside)
        )
        top = torch.isin(p.argmax(-1), inside).to(p.dtype)
        return torch.stack([p[:, inside].sum(-1), p[:, outside].sum(-1), top])

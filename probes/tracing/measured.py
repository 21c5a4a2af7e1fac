"""The variables of a causal trace: effects, and what is known of each prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.causal.effects import Direction, Effects
from probes.causal.metrics import LEAST, UNITS
from probes.causal.roles import role_of
from workbench.models.tokens import EncodedPrompt

__all__ = ["DIMS", "Scored", "unit_of", "variables"]

CELL = ("place", "site", "layer")
SCORES = ("score", "effect", "stderr", "clean", "corrupted", "total")
OWN_UNITS = {
    "normalised": "share",
    "role": "role",
    "target_id": "token id",
    "foil_id": "token id",
    "top_id": "token id",
    "correct": "truth",
    "group": "number",
    "block_tokens": "block-token",
}
DIMS = {
    **dict.fromkeys(("clean", "total", *OWN_UNITS), ("place",)),
    **dict.fromkeys(("effect", "stderr", "normalised"), CELL),
    "score": (*CELL, "sample"),
    "corrupted": ("place", "sample"),
}


def unit_of(name: str, metric: str) -> str:
    """The unit of a variable."""
    return UNITS[metric] if name in SCORES else OWN_UNITS[name]


@dataclass(frozen=True)
class Scored:
    """One prompt's clean and corrupted runs.

    Attributes:
        clean: score.
        corrupted: [samples] scores.
        base: [samples] scores of the runs that cells were put into.
        least: a total effect below this is about 0.
        top: the clean run's most probable token where the target's first is predicted.
        block_tokens: the prompt's share of the work.
    """

    clean: Tensor
    corrupted: Tensor
    base: Tensor
    least: float
    top: int
    block_tokens: int

    @classmethod
    def of(cls, found: Effects, index: int, metric: str, direction: Direction) -> Scored:
        """Of one of the prompts that were measured together."""
        clean, corrupted = found.clean[index].cpu(), found.corrupted[index].cpu()
        return cls(
            clean,
            corrupted,
            corrupted if direction == "denoising" else clean.expand_as(corrupted),
            LEAST[metric],
            int(found.top[index]),
            found.block_tokens // len(found.clean),
        )

    @property
    def total(self) -> Tensor:
        """The clean score less the mean corrupted one."""
        return self.clean - self.corrupted.mean()

    def normalised(self, scores: Tensor) -> Tensor:
        """(mean patched - corrupted) / total of [..., samples]; NaN where the total is about 0."""
        share = (scores.mean(-1) - self.corrupted.mean()) / self.total
        return share if self.total.abs() >= self.least else torch.full_like(share, torch.nan)


def variables(
    prompt: EncodedPrompt, where: Sequence[int], scores: Tensor, scored: Scored
) -> dict[str, Tensor]:
    """All variables of one prompt, its places first.

    Args:
        where: its positions.
        scores: [positions, site, layer, sample] of the patched runs.
        scored: its other runs.
    """
    gained, samples = scores - scored.base, scores.shape[-1]
    # One sample has no spread: NaN, not 0.
    spread = gained.std(-1) if samples > 1 else torch.full_like(gained[..., 0], torch.nan)
    first = prompt.answer[0] if prompt.answer else prompt.target
    whole = {
        "target_id": -1 if prompt.target is None else prompt.target,
        "foil_id": -1 if prompt.foil is None else prompt.foil,
        "top_id": scored.top,
        "correct": -1 if first is None else int(scored.top == first),
        "group": _group(prompt),
        "block_tokens": scored.block_tokens,
    }
    n = len(where)
    return {
        "score": scores,
        "effect": gained.mean(-1),
        "stderr": spread / samples**0.5,
        "normalised": scored.normalised(scores),
        "clean": scored.clean.expand(n),
        "corrupted": scored.corrupted.expand(n, -1),
        "total": scored.total.expand(n),
        "role": torch.tensor([_role(prompt, position) for position in where]),
        **{name: torch.full((n,), value) for name, value in whole.items()},
    }


def _group(prompt: EncodedPrompt) -> int:
    """The same number for prompts of one group, else of one subject, else of one text."""
    label = prompt.prompt.group or prompt.subject_text or prompt.text
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:6], "big")


def _role(prompt: EncodedPrompt, position: int) -> int:
    if prompt.prompt.subject is None:
        return -1
    return role_of(position, len(prompt), *prompt.subject)

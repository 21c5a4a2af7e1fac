"""What ablation takes from the prompt set: texts for means and donors, and the labels to compare."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from workbench.errors import PromptError, SettingError, WorkbenchError
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt, PromptSet

__all__ = ["MOST_LABELS", "Reference", "aligned", "field_of"]

MOST_LABELS = 4
LABELS = "labels"


@dataclass(frozen=True)
class Reference:
    """What an ablation keeps of the whole prompt set, in any shard of it the same.

    Attributes:
        prompts: the texts that means and resampled values are of, without targets.
        total: how many they were drawn from.
        source: what they were drawn from, in words.
        labels: the values of the compared field, ascending; empty where nothing is compared.
    """

    prompts: tuple[Prompt, ...]
    total: int
    source: str
    labels: tuple[str, ...]

    @classmethod
    def of(
        cls, prompts: Iterable[Prompt], *, file: str, most: int, seed: int, field: str
    ) -> Reference:
        """From the prompts that are to be measured, and the reference file where one is named.

        Of more than `most` texts, those with the least hashes are kept: a draw that knows no order.

        Raises:
            PromptError: the file cannot be read.
            SettingError: the field has one value, or too many to be compared.
        """
        found: set[str] = set()
        if not file:
            kept, total = _drawn(_noting(prompts, field, found), most, seed)
            source = "the prompts that are measured"
        else:
            for _ in _noting(prompts, field, found):
                pass
            kept, total = _drawn(PromptSet.read(file), most, seed)
            source = Path(file).name
        if field and not 2 <= len(found) <= MOST_LABELS:
            raise SettingError(
                f"ablate: compare={field!r} has {len(found)} values over the prompts: expected a field of "
                f"2 to {MOST_LABELS}"
            )
        return cls(kept, total, source, tuple(sorted(found)))

    @property
    def said(self) -> str:
        """Which texts these are, in words."""
        if len(self.prompts) == self.total:
            return f"all {self.total} of {self.source}"
        return f"{len(self.prompts)} of the {self.total} of {self.source}, drawn by the seed"

    def encoded(self, model: Model) -> list[EncodedPrompt]:
        """The texts that the model takes; others are refused when their own turn comes.

        Raises:
            PromptError: it takes none.
        """
        found = []
        for prompt in self.prompts:
            try:
                found.append(model.encode(prompt))
            except WorkbenchError:
                continue
        if not found:
            raise PromptError(f"ablate: {self.said}: expected one that {model.name} takes")
        return found

    def others(self, prompt: Prompt) -> list[Prompt]:
        """The texts but the prompt's own."""
        return [one for one in self.prompts if one.shown != prompt.shown]

    def donors(self, prompt: Prompt, draws: int, seed: int) -> list[Prompt]:
        """`draws` other texts, none twice; the same for a prompt in any batch."""
        key = hashlib.sha256(repr((seed, prompt.shown)).encode()).digest()
        return Random(key).sample(self.others(prompt), draws)


def _drawn(prompts: Iterable[Prompt], most: int, seed: int) -> tuple[tuple[Prompt, ...], int]:
    """The `most` texts of least hash, and how many there were."""
    number = count()
    hashed = (
        (hashlib.sha256(f"{seed} {prompt.shown}".encode()).digest(), next(number), prompt)
        for prompt in prompts
    )
    kept = heapq.nsmallest(most, hashed)
    bare = tuple(Prompt(one.text, messages=one.messages) for _, _, one in kept)
    return bare, next(number)


def _noting(prompts: Iterable[Prompt], field: str, found: set[str]) -> Iterator[Prompt]:
    for prompt in prompts:
        if field and (value := field_of(prompt, field)) is not None:
            found.add(value)
        yield prompt


def field_of(prompt: Prompt, field: str) -> str | None:
    """A field of a prompt's line as text: its group, one of its labels, or any other; None without it."""
    if field == "group":
        return prompt.group
    labels = prompt.labels
    if field == LABELS and not isinstance(labels, dict):
        value = labels
    elif isinstance(labels, dict) and field in labels:
        value = labels[field]
    else:
        value = prompt.extra.get(field)
    if value is None or value == "":
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


def aligned(lengths: list[int], donors: list[int], width: int) -> Tensor:
    """[rows, width] the position of the donor that stands for each position of a prompt.

    The first for the first, the last for the last, and between them round(p (m - 1) / (n - 1)), for n
    tokens of the prompt and m of the donor: position by position where n = m.
    """
    found = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, (n, m) in enumerate(zip(lengths, donors, strict=True)):
        steps = torch.arange(n) * (m - 1) / max(n - 1, 1)
        found[row, :n] = steps.round().long() if n > 1 else m - 1
    return found

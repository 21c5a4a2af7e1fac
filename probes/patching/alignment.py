"""Which token of a counterfactual stands where a prompt's token does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from probes.causal.corruption import counterfactual, counterpart
from workbench.errors import PromptError
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

__all__ = ["Align", "Pair", "matched", "paired"]

Align = Literal["position", "role"]
FIELD = "corrupted_subject"


@dataclass(frozen=True)
class Pair:
    """A prompt with its counterfactual.

    Attributes:
        prompt, other: both, encoded.
        counterpart: by position of the prompt, the position in the other text; without those that
            have none. It ascends, and goes on to the tokens of an answer behind both.
    """

    prompt: EncodedPrompt
    other: EncodedPrompt
    counterpart: Mapping[int, int]


def paired(model: Model, prompt: EncodedPrompt, align: Align, who: str) -> Pair:
    """The prompt's counterfactual, aligned.

    Args:
        align: "position": texts of equal length, token by token; "role": see `matched`.

    Raises:
        PromptError: no corrupted text, one of another length (position), or one whose subject
            cannot be placed (role).
    """
    answer = range(max(0, len(prompt.answer) - 1))
    if align == "position":
        other = counterfactual(model, prompt, who)
        same = range(len(prompt) + len(answer))
        return Pair(prompt, other, dict(zip(same, same, strict=True)))
    first = prompt.subject
    if prompt.prompt.corrupted is None:
        raise PromptError(f"{who}: prompt {prompt.text[:40]!r} has no corrupted text: give one")
    other = counterpart(model, prompt, who, _subject(prompt, who))
    found = matched(first, len(prompt), other.subject, len(other))
    return Pair(prompt, other, found | {len(prompt) + i: len(other) + i for i in answer})


def matched(
    first: tuple[int, int], length: int, second: tuple[int, int], other: int
) -> dict[int, int]:
    """Positions of one text by those of another that play their roles.

    Before the subject, token by token from the start. In the subject, token by token where both have
    as many; else first to first and last to last, where a subject of one token is a last one. Behind
    the subject, token by token from the end. What is left over in either text has no counterpart.

    Args:
        first, second: first and last position of each text's subject.
        length, other: tokens in each text.

    >>> matched((1, 2), 5, (1, 3), 7)
    {0: 0, 1: 1, 2: 3, 3: 5, 4: 6}
    """
    before = min(first[0], second[0])
    behind = min(length - 1 - first[1], other - 1 - second[1])
    size = first[1] - first[0], second[1] - second[0]
    if size[0] == size[1]:
        inside = {first[0] + i: second[0] + i for i in range(size[0] + 1)}
    else:
        ends = {first[0]: second[0]} if min(size) > 0 else {}
        inside = ends | {first[1]: second[1]}
    tail = {length - i: other - i for i in range(behind, 0, -1)}
    return {i: i for i in range(before)} | inside | tail


def _subject(prompt: EncodedPrompt, who: str) -> str | tuple[int, int]:
    """The corrupted text's subject: as given, or what stands in the place of the prompt's own."""
    own = prompt.prompt
    if own.extra.get(FIELD) is not None:
        given: str | tuple[int, int] = own.extra[FIELD]  # checked where it becomes a prompt's
        return given
    assert own.corrupted is not None
    assert own.subject is not None
    start, end = _characters(prompt.text, own.subject)
    before, behind = prompt.text[:start], prompt.text[end:]
    stop = len(own.corrupted) - len(behind)
    if own.corrupted.startswith(before) and own.corrupted.endswith(behind) and start < stop:
        return start, stop
    raise PromptError(
        f"{who}: corrupted {own.corrupted[:40]!r} differs from its prompt beyond the subject "
        f"{own.subject!r}: name its own subject in the prompt's field {FIELD!r}"
    )


def _characters(text: str, subject: str | tuple[int, int]) -> tuple[int, int]:
    if not isinstance(subject, str):
        return subject
    start = text.index(subject)
    return start, start + len(subject)

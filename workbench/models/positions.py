"""Which token positions of a prompt an instrument reads: all, last, indices, a slice, or a role."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from workbench.errors import SettingError
from workbench.models.chat import CHAT_ROLES
from workbench.models.tokens import EncodedPrompt

__all__ = ["ROLES", "Positions", "checked_positions", "require_positions", "resolve_positions"]

Positions = str | int | slice | Iterable[int]
"""What `positions=` accepts: "all", "last", a role, one index, a slice, or indices.

Places always go prompt by prompt and by ascending position, in whatever order indices are given.
"""

SUBJECT_ROLES = ("subject", "first_subject", "last_subject", "after_subject")
ROLES = ("all", "last", "mask", *SUBJECT_ROLES, *CHAT_ROLES)


def checked_positions(spec: Positions) -> str | slice | tuple[int, ...]:
    """`spec` as a role, a slice or ascending distinct indices (numpy's and torch's become Python's).

    Raises:
        SettingError: an unknown role, or something that is no position.
    """
    if isinstance(spec, str):
        if spec not in ROLES:
            raise SettingError(
                f"unknown positions {spec!r}: expected one of {', '.join(ROLES)}, or indices"
            )
        return spec
    try:
        if isinstance(spec, slice):
            _ = range(0)[spec]  # refuses a step of zero, and bounds that are no whole numbers
            return spec
        items = list(spec) if isinstance(spec, Iterable) else [spec]
        return tuple(sorted({_whole(item) for item in items}))
    except (TypeError, ValueError):
        raise SettingError(
            f"positions {spec!r}: expected one of {', '.join(ROLES)}, indices or a slice"
        ) from None


def _whole(item: Any) -> int:
    if isinstance(item, bool):
        raise TypeError("a truth value is no position")
    return operator.index(item)


def resolve_positions(spec: Positions, prompt: EncodedPrompt) -> list[int]:
    """Positions (0 is the first token, BOS counted, padding not) that `spec` means in `prompt`.

    Negative indices count from the end of the prompt.

    Raises:
        SettingError: what `checked_positions` refuses, or an index outside the prompt.
        PromptError: a role of the subject in a prompt whose subject cannot be placed, one of a chat
            in a prompt that is none or has no such turn, or "mask" in one without a masked word.
    """
    known = checked_positions(spec)
    if isinstance(known, str):
        return _role(known, prompt)
    if isinstance(known, slice):
        return sorted(range(len(prompt))[known])
    return sorted({_index(i, prompt) for i in known})


def require_positions(spec: Positions, prompt: EncodedPrompt, who: str) -> None:
    """Refuse a prompt in which `spec` means no position.

    Args:
        who: the instrument's name, for the error.

    Raises:
        SettingError, PromptError: it means none, or what `resolve_positions` refuses.
    """
    if not resolve_positions(spec, prompt):
        raise SettingError(
            f"{who}: positions {spec!r} are none of the {len(prompt)} of prompt {prompt.text[:40]!r}: "
            "expected at least one"
        )


def _role(role: str, prompt: EncodedPrompt) -> list[int]:
    if role == "all":
        return list(range(len(prompt)))
    if role == "last":
        return [len(prompt) - 1]
    if role == "mask":
        return prompt.masked
    if role in CHAT_ROLES:
        return prompt.turns(role)
    first, last = prompt.subject
    if role == "after_subject":
        return [_index(last + 1, prompt)]
    return {"subject": list(range(first, last + 1)), "first_subject": [first]}.get(role, [last])


def _index(index: int, prompt: EncodedPrompt) -> int:
    length = len(prompt)
    if not -length <= index < length:
        raise SettingError(
            f"position {index} is outside prompt {prompt.text[:40]!r}: it has {length} tokens"
        )
    return index % length

"""Which token positions of a prompt an instrument reads: all, last, indices, a slice, or a role."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.errors import SettingError
from workbench.models.tokens import EncodedPrompt

__all__ = ["ROLES", "Positions", "resolve_positions"]

Positions = str | int | slice | Sequence[int]
"""What `positions=` accepts: "all", "last", a role, one index, a slice, or indices."""

ROLES = ("all", "last", "subject", "first_subject", "last_subject", "after_subject")


def resolve_positions(spec: Positions, prompt: EncodedPrompt) -> list[int]:
    """Positions (0 is the first token, BOS counted, padding not) that `spec` means in `prompt`.

    Negative indices count from the end of the prompt.

    Raises:
        SettingError: an unknown role, or an index outside the prompt.
        PromptError: a role of the subject in a prompt whose subject cannot be placed.
    """
    if isinstance(spec, str):
        return _role(spec, prompt)
    if isinstance(spec, slice):
        return list(range(len(prompt)))[spec]
    indices = [spec] if isinstance(spec, int) else list(spec)
    return sorted({_index(i, prompt) for i in indices})


def _role(role: str, prompt: EncodedPrompt) -> list[int]:
    if role not in ROLES:
        raise SettingError(
            f"unknown positions {role!r}: expected one of {', '.join(ROLES)}, or indices"
        )
    if role == "all":
        return list(range(len(prompt)))
    if role == "last":
        return [len(prompt) - 1]
    first, last = prompt.subject
    if role == "after_subject":
        return [_index(last + 1, prompt)]
    return {"subject": list(range(first, last + 1)), "first_subject": [first]}.get(role, [last])


def _index(index: int, prompt: EncodedPrompt) -> int:
    length = len(prompt)
    if not -length <= index < length:
        raise SettingError(
            f"position {index} is outside prompt {prompt.prompt.text[:40]!r}: it has {length} tokens"
        )
    return index % length

"""Roles of tokens: what a position is to its prompt's subject, so that prompts can be averaged."""

from __future__ import annotations

__all__ = ["NO_ROLE", "ROLES", "role_of"]

ROLES = (
    "before_subject",
    "first_subject",
    "middle_subject",
    "last_subject",
    "first_after",
    "further",
    "last",
)
NO_ROLE = -1  # of the tokens of a prompt without a subject


def role_of(position: int, length: int, first: int, last: int) -> int:
    """Index into `ROLES` of one token of a prompt with a subject.

    A subject of one token is the last subject token and nothing else. The prompt's last token is
    "last", also where it stands right behind the subject, unless it is part of the subject.

    Args:
        position: of the token, from 0.
        length: tokens of the prompt.
        first, last: the subject's first and last token, both included.

    >>> [ROLES[role_of(i, 6, 1, 2)] for i in range(6)]
    ['before_subject', 'first_subject', 'last_subject', 'first_after', 'further', 'last']
    """
    return ROLES.index(_name(position, length, first, last))


def _name(position: int, length: int, first: int, last: int) -> str:
    if position < first:
        return "before_subject"
    if position == last:
        return "last_subject"
    if position < last:
        return "first_subject" if position == first else "middle_subject"
    if position == length - 1:
        return "last"
    return "first_after" if position == last + 1 else "further"

"""What part a token plays in its prompt, which averages over prompts go by."""

from __future__ import annotations

__all__ = ["ROLES", "role_of"]

ROLES = (
    "before_subject",
    "first_subject",
    "middle_subject",
    "last_subject",
    "first_after",
    "further",
    "last",
)


def role_of(position: int, length: int, first: int, last: int) -> int:
    """Index into `ROLES` of a token; each has one role.

    A subject of one token counts as its last token alone, one of two has no middle. The prompt's last
    token is "last" also where it follows the subject at once; where it is of the subject it is the
    subject's.

    Args:
        position: of the token, 0..length - 1.
        length: of the prompt, in tokens.
        first, last: position of the subject's first and last token.
    """
    if position < first:
        return ROLES.index("before_subject")
    if position == last:
        return ROLES.index("last_subject")
    if position < last:
        return ROLES.index("first_subject" if position == first else "middle_subject")
    if position == length - 1:
        return ROLES.index("last")
    return ROLES.index("first_after" if position == last + 1 else "further")

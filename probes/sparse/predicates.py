"""Features that need no labels: what a token's text, its position or a field of its prompt says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workbench.errors import SettingError
from workbench.prompts import Prompt

__all__ = ["PREDICATES", "Rule", "rule_of"]

TOKEN, POSITION = "token:", "position:"
BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how a token's text spells a byte that is no character


def _digit(text: str) -> bool:
    return text.strip().isdigit()


def _capitalised(text: str) -> bool:
    return text.strip()[:1].isupper() and not _all_capitals(text)


def _all_capitals(text: str) -> bool:
    return text.isupper() and sum(map(str.isalpha, text)) > 1


def _leading_space(text: str) -> bool:
    return text.startswith(" ")


def _punctuation(text: str) -> bool:
    return bool(text.strip()) and all(unicodedata.category(c)[0] in "PS" for c in text.strip())


def _whitespace(text: str) -> bool:
    return text.isspace()


def _non_ascii(text: str) -> bool:
    return not text.isascii() or any(int(byte, 16) > 127 for byte in BYTE.findall(text))


PREDICATES: Mapping[str, Callable[[str], bool]] = {
    "digit": _digit,
    "capitalised": _capitalised,
    "all_capitals": _all_capitals,
    "leading_space": _leading_space,
    "punctuation": _punctuation,
    "whitespace": _whitespace,
    "non_ascii": _non_ascii,
}
"""Of a token's text with its leading space. `capitalised` begins with a capital and is not
`all_capitals`, which is two or more letters, all of them capitals; `punctuation` is punctuation or
symbols alone."""


@dataclass(frozen=True)
class Rule:
    """A feature that follows from the prompt itself.

    Attributes:
        name: what the feature is called.
        of_token: (text of the token, its position among the tokens of the text) -> whether it has
            the feature; None where the feature is the prompt's.
        of_prompt: prompt -> whether it has the feature, None where it says nothing; None where the
            feature is a token's.
    """

    name: str
    of_token: Callable[[str, int], bool] | None = None
    of_prompt: Callable[[Prompt], bool | None] | None = None


def rule_of(name: str) -> Rule | None:
    """The rule that a feature's name spells; None where it is the name of a label.

    "token:digit" and the other predicates, "token:prefix=un", "token:suffix=ing" (of the token's text
    without spaces around it); "position:0" (special tokens are not counted); "relation=capital": the
    prompt's field `relation` is "capital", and those without the field say nothing.

    Raises:
        SettingError: an unknown predicate, or a position that is no whole number.
    """
    if name.startswith(TOKEN):
        test = _test(name, name.removeprefix(TOKEN))
        return Rule(name, of_token=lambda text, _: test(text))
    if name.startswith(POSITION):
        wanted = name.removeprefix(POSITION)
        if not wanted.isdecimal():
            raise SettingError(f"feature {name!r}: expected position: and a whole number")
        return Rule(name, of_token=lambda _, position: position == int(wanted))
    field, equals, value = name.partition("=")
    if not equals:
        return None

    def says(prompt: Prompt) -> bool | None:
        return None if field not in prompt.extra else str(prompt.extra[field]) == value

    return Rule(name, of_prompt=says)


def _test(name: str, wanted: str) -> Callable[[str], bool]:
    kind, equals, value = wanted.partition("=")
    if equals and value and kind == "prefix":
        return lambda text: text.strip().startswith(value)
    if equals and value and kind == "suffix":
        return lambda text: text.strip().endswith(value)
    if wanted in PREDICATES:
        return PREDICATES[wanted]
    known = ", ".join((*PREDICATES, "prefix=...", "suffix=..."))
    raise SettingError(f"feature {name!r}: expected token: and one of {known}")

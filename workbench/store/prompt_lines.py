"""Prompts as they were encoded, one line of JSON each: what stored states belong to.

A line has the fields of `EncodedPrompt`, but for the mask token, which the stored tokenizer knows;
and `called`: the index by which results call a prompt that has no id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from workbench.errors import PromptError, ResultError
from workbench.models.chat import Chat
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt, PromptSet

__all__ = ["StoredPrompt", "hash_lines", "prompt_lines", "read_lines", "write_lines"]

FILE = "prompts.jsonl"


@dataclass(frozen=True)
class StoredPrompt(EncodedPrompt):
    """A prompt as the captured model saw it.

    Attributes:
        number: its place in the store.
    """

    number: int = field(kw_only=True)


def prompt_lines(prompts: PromptSet, encoded: Sequence[EncodedPrompt]) -> Iterator[str]:
    """One line of JSON for each prompt.

    Raises:
        PromptError: labels or other fields that are no JSON data.
    """
    names = prompts.numbers or range(len(prompts))
    for called, each in zip(names, encoded, strict=True):
        yield _line(each, called)


def _line(encoded: EncodedPrompt, called: int) -> str:
    own = {name: value for name, value in _fields(encoded).items() if name != "mask"}
    try:
        line = json.dumps(
            own | {"prompt": _fields(encoded.prompt), "chat": _chat(encoded), "called": called},
            ensure_ascii=False,
            allow_nan=False,
        )
        same = Prompt(**json.loads(line)["prompt"]) == encoded.prompt
    except (TypeError, ValueError):
        same = False
    if not same:
        raise PromptError(
            f"prompt {encoded.prompt.shown[:40]!r} cannot be stored as JSON: expected labels and other "
            "fields of strings, numbers, lists and objects"
        )
    return line


def _fields(data: Any) -> dict[str, Any]:
    """The fields of a dataclass, as they are (`asdict` copies every number of them)."""
    return {each.name: getattr(data, each.name) for each in fields(data)}


def _chat(encoded: EncodedPrompt) -> dict[str, Any] | None:
    return None if encoded.chat is None else _fields(encoded.chat)


def hash_lines(lines: Iterable[str]) -> str:
    """First 16 hex digits of the SHA-256 of the lines."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()[:16]


def write_lines(folder: Path, lines: Iterable[str]) -> None:
    """Write the lines into `folder`."""
    with (folder / FILE).open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def read_lines(
    folder: Path, expected: str, mask: int | None
) -> tuple[PromptSet, list[StoredPrompt]]:
    """The prompts, and how they were encoded.

    Args:
        folder: where `write_lines` wrote them.
        expected: their hash.
        mask: the id of the stored tokenizer's mask token; None where it has none.

    Raises:
        ResultError: the file is missing, or does not hold what was written.
    """
    path = folder / FILE
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        if hash_lines(lines) != expected:
            raise ValueError("it is not as it was written")
        return _read(lines, mask)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ResultError(f"{path} cannot be read: {error}; capture again") from None


def _read(lines: Sequence[str], mask: int | None) -> tuple[PromptSet, list[StoredPrompt]]:
    found = [json.loads(line) for line in lines]
    encoded = [_encoded(line, number, mask) for number, line in enumerate(found)]
    called = tuple(int(line["called"]) for line in found)
    return PromptSet(tuple(each.prompt for each in encoded), called), encoded


def _encoded(line: dict[str, Any], number: int, mask: int | None) -> StoredPrompt:
    return StoredPrompt(
        Prompt(**line["prompt"]),
        tuple(line["ids"]),
        tuple((start, end) for start, end in line["spans"]),
        line["target"],
        line["foil"],
        _chat_of(line["chat"]),
        mask,
        number=number,
    )


def _chat_of(given: dict[str, Any] | None) -> Chat | None:
    if given is None:
        return None
    spans = given["roles"].items()
    return Chat(given["text"], {role: tuple((a, b) for a, b in found) for role, found in spans})

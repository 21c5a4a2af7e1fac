"""Prompts and prompt sets: what is asked of a model, and of which token."""

from __future__ import annotations

import csv
import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from workbench.errors import PromptError
from workbench.messages import Messages, checked_messages, transcript

__all__ = ["Prompt", "PromptSet", "Prompts", "checked_file", "lines", "prompt_of"]

FIELDS = ("text", "messages", "id", "target", "foil", "subject", "corrupted", "group", "labels")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
OBJECTS = (".jsonl", ".ndjson")
SUFFIXES = (*OBJECTS, *SEPARATORS, ".txt")
SURPLUS = "cells without a column"


@dataclass(frozen=True)
class Prompt:
    """One prompt: a text, or the messages of a chat.

    Attributes:
        text: the prompt itself; special tokens are added by the model's own tokenizer, once.
        messages: in the place of a text, {"role": ..., "content": ...} objects, which the model's
            own chat template makes one of; special tokens are those that it writes.
        id: a name for the prompt in results; its index in the set where None.
        target: the token whose probability is followed: a string that is one token (" Paris", with
            its space) or an exact token id.
        foil: a second token to compare the target with, in the same form.
        subject: the words that the prompt is about, as a substring that occurs once, or as
            (start, end) character offsets; of a chat, in the text that its template makes.
        corrupted: a counterfactual text, of as many tokens, for instruments that patch between the two.
        group: a label of prompts that must not be split, such as the entity.
        labels: labels for probes.
        extra: every other field of the prompt's line, kept as it was.
    """

    text: str = ""
    id: str | None = None
    target: str | int | None = None
    foil: str | int | None = None
    subject: str | tuple[int, int] | None = None
    group: str | None = None
    labels: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    messages: Messages = field(default=(), kw_only=True)
    corrupted: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", checked_messages(self.messages))
        if not isinstance(self.text, str) or not (self.text or self.messages):
            raise PromptError("empty prompt: expected at least one character of text")
        if self.text and self.messages:
            raise PromptError("a prompt has text and messages: expected one of them")
        for name in ("shown", "id", "group", "corrupted"):
            _require_storable(name.replace("shown", "text"), getattr(self, name))
        if self.subject is not None and not isinstance(self.subject, str):
            object.__setattr__(self, "subject", _span(self.subject))
        for name in ("target", "foil"):
            object.__setattr__(self, name, _text_or_id(name, getattr(self, name)))

    @property
    def shown(self) -> str:
        """What lists and error messages call the prompt; a chat's roles and contents, line by line."""
        return self.text or transcript(self.messages)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Prompt:
        """A prompt from one row of a file; fields without a meaning here go to `extra`."""
        known = {name: fields[name] for name in FIELDS if fields.get(name) not in (None, "")}
        if not isinstance(fields.get("text"), str) and "messages" not in known:
            raise PromptError("no text: expected a field 'text' that holds a string, or 'messages'")
        if not isinstance(known.get("corrupted", ""), str):
            raise PromptError(f"corrupted is {known['corrupted']!r}: expected a text")
        for name in ("target", "foil"):
            if not isinstance(known.get(name, ""), str | int):
                raise PromptError(f"{name} is {known[name]!r}: expected a string or a token id")
        for name in ("id", "group"):
            if not isinstance(known.get(name, ""), str | int):
                raise PromptError(f"{name} is {known[name]!r}: expected a string or a whole number")
        known |= {name: str(known[name]) for name in ("id", "group") if name in known}
        return cls(**known, extra={k: v for k, v in fields.items() if k not in FIELDS})


def _text_or_id(name: str, value: Any) -> str | int | None:
    """A target or a foil; of numpy's and torch's whole numbers, the number."""
    if value is None or isinstance(value, str):
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise PromptError(f"{name} is {value!r}: expected a string or a token id") from None


def _require_storable(name: str, value: str | None) -> None:
    """Refuse what no file of results could hold."""
    if value is None:
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{name} holds half of a character at {error.start}: not Unicode"
        ) from None
    if name != "text" and "\0" in value:
        raise PromptError(f"{name} {value!r} holds a NUL character: expected text")


def _span(value: Any) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 2:
        with suppress(TypeError):
            return operator.index(value[0]), operator.index(value[1])
    raise PromptError(f"subject is {value!r}: expected a string or [start, end]")


@dataclass(frozen=True)
class PromptSet(Sequence[Prompt]):
    """An ordered set of prompts with distinct ids.

    Attributes:
        prompts: the prompts.
        numbers: the index of each in the set that they were taken from; None for 0, 1, 2, ...
        lines: the line of the file that each stands in; None where they are of no file.

    >>> PromptSet.of(["The capital of France is", "The capital of Japan is"])[1].text
    'The capital of Japan is'
    """

    prompts: tuple[Prompt, ...]
    numbers: tuple[int, ...] | None = None
    lines: tuple[int, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.prompts:
            raise PromptError("no prompts: expected at least one")
        seen: set[str | int] = set()
        for name in self.names:
            if name in seen:
                raise PromptError(
                    f"id {name!r} is given to two prompts (a prompt without one is called by its "
                    "index): ids must differ"
                )
            seen.add(name)

    @classmethod
    def of(cls, prompts: Prompts) -> PromptSet:
        """A prompt set from a text, a prompt, or a sequence of either."""
        if isinstance(prompts, PromptSet):
            return prompts
        items = [prompts] if isinstance(prompts, str | Prompt) else list(prompts)
        return cls(tuple(p if isinstance(p, Prompt) else Prompt(p) for p in items))

    @classmethod
    def read(cls, path: str | Path) -> PromptSet:
        """Read JSONL (one object a line), CSV or TSV (a header row), or text (one prompt a line).

        Raises:
            PromptError: no such file, or a line that cannot be used, named by number and reason.
        """
        path = checked_file(path)
        prompts: dict[int, Prompt] = {}
        for number, fields in lines(path):
            try:
                prompts[number] = prompt_of(fields)
            except PromptError as error:
                raise PromptError(f"{path}, line {number}: {error}") from None
        if not prompts:
            raise PromptError(f"{path} holds no prompts: expected at least one line")
        return cls(tuple(prompts.values()), lines=tuple(prompts))

    @property
    def names(self) -> list[str] | list[int]:
        """What results call the prompts: their ids, or indices where no prompt has an id."""
        numbers = range(len(self.prompts)) if self.numbers is None else self.numbers
        if all(prompt.id is None for prompt in self.prompts):
            return list(numbers)
        return [
            str(i) if p.id is None else p.id for i, p in zip(numbers, self.prompts, strict=True)
        ]

    def subset(self, indices: Iterable[int]) -> PromptSet:
        """The prompts at these indices, called as they are in this set.

        >>> PromptSet.of(["a", "b", "c"]).subset([2]).names
        [2]
        """
        chosen = list(indices)
        named = any(prompt.id is not None for prompt in self.prompts)
        names = self.names
        prompts = [replace(self[i], id=str(names[i])) if named else self[i] for i in chosen]
        return PromptSet(
            tuple(prompts),
            None if named else tuple(int(names[i]) for i in chosen),
            None if self.lines is None else tuple(self.lines[i] for i in chosen),
        )

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: Any) -> Any:
        return self.prompts[index]


Prompts = str | Prompt | PromptSet | Iterable[str | Prompt]
"""What every call that takes prompts accepts."""


Line = Mapping[str, Any] | PromptError
"""The fields of one line, or why it has none."""


def checked_file(path: str | Path) -> Path:
    """`path`, if it is a prompt file.

    Raises:
        PromptError: no such file, or one of another kind.
    """
    path = Path(path)
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        what = "no prompt file" if not path.is_file() else "unknown kind of prompt file"
        raise PromptError(f"{what} {path}: expected {', '.join(SUFFIXES)}")
    return path


def lines(path: str | Path) -> Iterator[tuple[int, Line]]:
    """Number and fields of every line of a prompt file, one line in memory at a time.

    A line that cannot be read comes as a PromptError that says why (not which: that is the number).

    Raises:
        PromptError: the file as a whole cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if suffix in SEPARATORS:
                yield from _table(path, file, SEPARATORS[suffix])
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield (
                        number,
                        _parse(line) if suffix in OBJECTS else {"text": line.rstrip("\r\n")},
                    )
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not UTF-8 text (byte {error.start})") from None


def prompt_of(line: Line) -> Prompt:
    """The prompt of one line.

    Raises:
        PromptError: the line has none.
    """
    if isinstance(line, PromptError):
        raise line
    return Prompt.from_fields(line)


def _table(path: Path, file: TextIO, separator: str) -> Iterator[tuple[int, Line]]:
    reader = csv.DictReader(file, delimiter=separator, strict=True, restkey=SURPLUS)
    try:
        for row in reader:
            if SURPLUS in row or None in row.values():
                wanted = len(reader.fieldnames or ())
                yield reader.line_num, PromptError(f"expected {wanted} cells, as in the header")
            else:
                yield reader.line_num, row
    except csv.Error as error:
        raise PromptError(f"{path}, after line {reader.line_num}: {error}") from None


def _parse(line: str) -> Line:
    try:
        fields = json.loads(line.strip())
    except json.JSONDecodeError as error:
        return PromptError(f"not JSON ({error.msg} at column {error.colno})")
    except ValueError:  # Python refuses to read a whole number of thousands of digits
        return PromptError("not JSON that can be read (a whole number has too many digits)")
    except RecursionError:
        return PromptError("not JSON that can be read (nested too deeply)")
    if not isinstance(fields, dict):
        return PromptError("expected a JSON object with a field 'text'")
    return fields

"""Prompts for reports, shard by shard: a file is read as a stream, once to see that it is sound."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from workbench.errors import PromptError
from workbench.prompts import Prompt, Prompts, PromptSet, checked_file, lines, prompt_of

__all__ = ["PromptFile", "PromptSource", "Rejected", "every_prompt", "source_of", "survey"]

AT_ONCE = 100  # prompts in memory


@dataclass(frozen=True)
class Rejected:
    """A line of a prompt file that is no prompt, by number, and why."""

    line: int
    reason: str


class PromptSource(Protocol):
    """Prompts that come shard by shard.

    Attributes:
        name: what a person calls them.
        hash: 16 hex digits that change with the prompts.
        count: how many prompts.
        rejected: the lines that were left out.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def hash(self) -> str: ...  # noqa: D102
    @property
    def count(self) -> int: ...  # noqa: D102
    @property
    def rejected(self) -> Sequence[Rejected]: ...  # noqa: D102

    def shards(self, size: int, wanted: Callable[[int], bool]) -> Iterator[tuple[int, PromptSet]]:
        """Index of the first prompt, and the prompts, of every shard whose index is `wanted`."""


def source_of(prompts: str | Path | Prompts | PromptSource, *, skip_bad: bool) -> PromptSource:
    """Prompts to report on: a path is surveyed, prompts in memory are taken as they are."""
    if isinstance(prompts, Path):
        return survey(prompts, skip_bad=skip_bad)
    if isinstance(prompts, PromptFile | _InMemory):
        return prompts
    return _InMemory(PromptSet.of(prompts))  # type: ignore[arg-type]


def every_prompt(source: PromptSource) -> Iterator[Prompt]:
    """All of them in order, a hundred in memory at a time."""
    return (prompt for _, shard in source.shards(AT_ONCE, lambda _: True) for prompt in shard)


def survey(path: str | Path, *, skip_bad: bool = False) -> PromptFile:
    """Read every line of a prompt file once, and keep what is needed to read it in shards.

    Memory holds the ids, not the texts.

    Args:
        skip_bad: leave out lines that are no prompts, rather than stop.

    Raises:
        PromptError: the file cannot be used, or a line cannot, named by number and reason.
    """
    path = checked_file(path)
    stamp = _stamp(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    names, rejected = _Names(), []
    for number, line in lines(path):
        try:
            names.add(number, prompt_of(line))
        except PromptError as error:
            rejected.append(Rejected(number, str(error)))
    if rejected and not skip_bad:
        raise PromptError(f"{path}, {_all_of(rejected)}")
    if not names.count:
        raise PromptError(f"{path} holds no prompts: expected at least one line")
    names.require_distinct(path)
    return PromptFile(path, digest, names.count, tuple(rejected), bool(names.lines), stamp)


@dataclass(frozen=True)
class PromptFile:
    """A prompt file whose lines have been looked at.

    Attributes:
        named: whether any prompt has an id; if none has, prompts are called by their index.
        stamp: size and time of change when it was looked at.
    """

    path: Path
    hash: str
    count: int
    rejected: tuple[Rejected, ...]
    named: bool
    stamp: tuple[int, int]

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def shards(self, size: int, wanted: Callable[[int], bool]) -> Iterator[tuple[int, PromptSet]]:
        """See `PromptSource`; the texts of one shard are in memory at a time.

        Raises:
            PromptError: the file has changed since it was surveyed.
        """
        left_out = {one.line for one in self.rejected}
        kept = ((number, line) for number, line in lines(self.path) if number not in left_out)
        for start in range(0, self.count, size):
            taken = list(islice(kept, size))
            if _stamp(self.path) != self.stamp:
                raise PromptError(f"{self.path} has changed since the run began: run it again")
            if wanted(start):
                found = {number: prompt_of(line) for number, line in taken}
                yield start, self._set(start, tuple(found.values()), tuple(found))

    def raw(self) -> Iterator[tuple[Rejected, str]]:
        """Each line that was left out, as it stands in the file."""
        wanted = {one.line: one for one in self.rejected}
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(file, start=1):
                if number in wanted:
                    yield wanted[number], line.rstrip("\r\n")

    def _set(self, start: int, prompts: tuple[Prompt, ...], stand_in: tuple[int, ...]) -> PromptSet:
        numbers = range(start, start + len(prompts))
        if not self.named:
            return PromptSet(prompts, tuple(numbers), stand_in)
        named = tuple(
            prompt if prompt.id is not None else replace(prompt, id=str(number))
            for number, prompt in zip(numbers, prompts, strict=True)
        )
        return PromptSet(named, lines=stand_in)


@dataclass(frozen=True)
class _InMemory:
    """Prompts given in Python."""

    prompts: PromptSet
    name: str = "prompts given in Python"
    rejected: tuple[Rejected, ...] = ()

    @property
    def hash(self) -> str:
        fields = [asdict(prompt) for prompt in self.prompts] + [self.prompts.names]
        text = json.dumps(fields, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def count(self) -> int:
        return len(self.prompts)

    def shards(self, size: int, wanted: Callable[[int], bool]) -> Iterator[tuple[int, PromptSet]]:
        for start in range(0, self.count, size):
            if wanted(start):
                yield start, self.prompts.subset(range(start, min(start + size, self.count)))


@dataclass
class _Names:
    """What the prompts of a file are called."""

    lines: dict[str, int] = field(default_factory=dict)  # by id
    has_id: bytearray = field(default_factory=bytearray)

    @property
    def count(self) -> int:
        return len(self.has_id)

    def add(self, line: int, prompt: Prompt) -> None:
        if prompt.id is not None:
            first = self.lines.setdefault(prompt.id, line)
            if first != line:
                raise PromptError(f"id {prompt.id!r} stands in line {first} too: ids must differ")
        self.has_id.append(prompt.id is not None)

    def require_distinct(self, path: Path) -> None:
        """Refuse an id that is the number of a prompt without one."""
        for name, line in self.lines.items():
            number = int(name) if name.isdecimal() and len(name) < 10 else self.count
            if number < self.count and str(number) == name and not self.has_id[number]:
                raise PromptError(
                    f"{path}, line {line}: id {name!r} is what prompt number {name}, which has no id, "
                    "is called: give that one an id, too"
                )


def _all_of(rejected: Sequence[Rejected]) -> str:
    first, others = rejected[0], len(rejected) - 1
    more = f" (and {others} more bad line{'s' * (others > 1)})" if others else ""
    return f"line {first.line}: {first.reason}{more}; mend it, or leave bad lines out (--skip-bad)"


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns

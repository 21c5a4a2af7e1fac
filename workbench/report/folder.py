"""Where everything lies in a report's folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.report.attempts import Failure
from workbench.store.shards import Shards

__all__ = ["ERRORS", "MADE", "PROMPTS", "Folder", "json_lines", "read_json_lines"]

PROMPTS = "prompts.parquet"
ERRORS = "errors.jsonl"
MADE = "made.json"


class Folder:
    """The folder of one report.

    Attributes:
        path: the folder.
        shards: its shards, each of a range of prompts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shards = Shards(path / "shards")

    @staticmethod
    def key(start: int) -> str:
        """The key of the shard whose first prompt has this index."""
        return f"{start:09d}"

    @property
    def page(self) -> Path:
        """The report that a person reads."""
        return self.path / "report.html"

    def files(self, name: str) -> list[Path]:
        """Every finished shard's file of this name, where it has one."""
        paths = [self.shards.folder(key) / name for key in self.shards.keys()]  # noqa: SIM118
        return [path for path in paths if path.exists()]

    def failures(self) -> Iterator[Failure]:
        """What could not be measured, of every finished shard."""
        for path in self.files(ERRORS):
            for fields in read_json_lines(path):
                yield Failure(**fields)

    def made(self) -> list[dict[str, Any]]:
        """When, where and in what time each shard was made."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in self.files(MADE)]

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write or replace a file of JSON lines; without rows there is none."""
        text = json_lines(rows)
        if not text:
            (self.path / name).unlink(missing_ok=True)
            return
        with self.shards.replacing(self.path / name) as new:
            new.write_text(text, encoding="utf-8")


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)

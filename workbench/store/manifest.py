"""The manifest of a folder of results: what the run is, so that no other run writes into it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.errors import ResultError

__all__ = ["open_manifest", "read_manifest"]

NAME = "manifest.json"
SIZE = "shard_size"
RECORDED = "recorded"
LONGEST = 120


def open_manifest(
    folder: Path, content: Mapping[str, Any], *, recorded: Mapping[str, Any] | None = None
) -> None:
    """Make `folder` that of the run described by `content`, or see that it is.

    Args:
        folder: made where it is missing; its parent must be there.
        content: JSON data that must be equal for all who write into the folder.
        recorded: JSON data that is kept of the first writer and not compared.

    Raises:
        ResultError: the folder is another run's, with the first difference; it holds other files;
            or it cannot be made.
    """
    ours = json.loads(json.dumps(content, allow_nan=False))
    entries = _entries(folder)
    if NAME not in entries:
        if entries:
            raise ResultError(
                f"{folder} holds {entries[0]!r} and no {NAME}: expected a new or an empty folder"
            )
        _write_once(folder / NAME, ours | {RECORDED: dict(recorded or {})})
    theirs = {key: value for key, value in read_manifest(folder).items() if key != RECORDED}
    for key, difference in _differences(theirs, ours, ""):
        raise ResultError(
            f"{folder} is another run's: its {key} {difference}; choose another folder"
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, with `recorded`.

    Raises:
        ResultError: there is none, or it cannot be read.
    """
    path = folder / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError(f"no {NAME} in {folder}: it is no folder of a run") from None
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ResultError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ResultError(f"{path} cannot be read: expected a JSON object")
    return found


def _entries(folder: Path) -> list[str]:
    """Names in the folder, which is made where it is missing, but for hidden ones."""
    try:
        folder.mkdir(exist_ok=True)
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ResultError(f"{folder} cannot be used: {error.strerror}") from None


def _write_once(path: Path, content: Mapping[str, Any]) -> None:
    """Write a whole file; where another process was first, its file stays."""
    unfinished = path.with_name(f".unfinished.{uuid.uuid4().hex}")
    try:
        with unfinished.open("x", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.link(unfinished, path)  # unlike a rename, it never replaces
    except FileExistsError:
        pass
    finally:
        unfinished.unlink(missing_ok=True)


def _differences(theirs: Any, ours: Any, key: str) -> Iterator[tuple[str, str]]:
    """(key, in what theirs differs) wherever the two differ; None for what is missing."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        # Last the size of shards, which follows from what they hold.
        for name in sorted(theirs.keys() | ours.keys(), key=lambda name: (name == SIZE, name)):
            inner = f"{key}.{name}" if key else name
            yield from _differences(theirs.get(name), ours.get(name), inner)
    elif theirs != ours and isinstance(theirs, list) and isinstance(ours, list):
        yield key, _list_difference(theirs, ours)
    elif theirs != ours:
        yield key, f"is {_short(theirs)}, here {_short(ours)}"


def _list_difference(theirs: list[Any], ours: list[Any]) -> str:
    """What only one of two lists has."""
    there = [item for item in theirs if item not in ours]
    here = [item for item in ours if item not in theirs]
    if not there and not here:
        return "has the same items in another order or number"
    parts = [(there, "there"), (here, "here")]
    return "has " + " and ".join(f"{_short(items)} only {where}" for items, where in parts if items)


def _short(value: Any) -> str:
    text = "missing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."

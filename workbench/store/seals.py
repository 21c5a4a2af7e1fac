"""A seal on a folder of a store: which store it belongs to, and what its files held when written.

It is written last into an unfinished folder and appears with it, so that no folder is without one
and a capture that was stopped can go on.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from workbench.errors import ResultError

__all__ = ["require_sealed", "seal"]

FILE = "seal.json"


def seal(folder: Path, store: str) -> None:
    """Record the SHA-256 of every file in `folder`.

    Args:
        folder: holds all that it will hold.
        store: hash of the store's description.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    hashes = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    (folder / FILE).write_text(json.dumps({"store": store, "files": hashes}, indent=2))


def require_sealed(folder: Path, store: str) -> None:
    """Refuse a folder that is not as it was written, or that another store's capture wrote.

    Raises:
        ResultError: naming the first file that is missing, cannot be read or has changed.
    """
    found = _read(folder)
    if found["store"] != store:
        raise ResultError(
            f"{folder} does not belong to its store's manifest: one of them was changed or copied; "
            "capture again into a new folder"
        )
    for name, expected in found["files"].items():
        try:
            same = _sha256(folder / name) == expected
        except OSError as error:
            raise _unreadable(folder, name, str(error.strerror)) from None
        if not same:
            raise _unreadable(folder, name, "it is not as it was written")


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {"store": str(found["store"]), "files": dict(found["files"])}
    except OSError as error:
        raise _unreadable(folder, FILE, str(error.strerror)) from None
    except (KeyError, TypeError, ValueError):
        raise _unreadable(folder, FILE, "it is not as it was written") from None


def _unreadable(folder: Path, name: str, reason: str) -> ResultError:
    return ResultError(
        f"{folder / name} cannot be read: {reason}; remove the folder {folder} and capture again"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

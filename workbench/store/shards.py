"""Shard folders that appear whole or not at all, so that their listing is the record of progress."""

from __future__ import annotations

import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from workbench.errors import ResultError

__all__ = ["Shards"]

UNFINISHED = ".unfinished"
FORGOTTEN_SECONDS = 24 * 3600.0
CLOCK_SECONDS = 2.0


class Shards:
    """The shard folders in one folder, which several processes may fill at once.

    A shard is written in a hidden folder of its own, brought to the disk and then renamed to its
    key. Whoever is killed leaves a hidden folder, never half a shard.

    Attributes:
        root: the folder that holds the shard folders; made by the first shard.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def keys(self) -> list[str]:
        """The keys of the finished shards, sorted."""
        return sorted(path.name for path in self._folders() if not path.name.startswith("."))

    def __contains__(self, key: str) -> bool:
        return (self.root / key).is_dir()

    def folder(self, key: str) -> Path:
        """The folder of a finished shard.

        Raises:
            ResultError: it is not finished.
        """
        if key not in self:
            raise ResultError(f"no shard {key!r} in {self.root}: run the same command again")
        return self.root / key

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """A folder to write the shard `key` in.

        When the block ends it is brought to the disk and renamed; after an exception it is removed.
        Where another process has finished the same shard meanwhile, that one is kept.
        """
        with self._unfinished() as folder:
            yield folder
            _sync_tree(folder)
            self._settle(folder, key)

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """A file to write that takes the place of `path`, on the same disk, when the block ends.

        After an exception `path` is as it was.
        """
        with self._unfinished() as folder:
            yield folder / path.name
            _sync(folder / path.name)
            (folder / path.name).replace(path)
            _sync(path.parent)

    def sweep(self) -> None:
        """Remove what killed writers left.

        A writer on another machine cannot be asked, so its folder goes when it is a day old.
        """
        for path in self._folders():
            if path.name.startswith(UNFINISHED) and _stale(path):
                shutil.rmtree(path, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return [path for path in self.root.iterdir() if path.is_dir()] if self.root.is_dir() else []

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        self.root.mkdir(parents=True, exist_ok=True)
        name = f"{UNFINISHED}.{os.getpid()}.{uuid.uuid4().hex}.{platform.node()}"
        folder = self.root / name
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _settle(self, unfinished: Path, key: str) -> None:
        try:
            unfinished.rename(self.root / key)
        except OSError:
            if key not in self:  # another writer was first where it is
                raise
        _sync(self.root)


def _stale(path: Path) -> bool:
    """Whether nobody writes in this folder any more."""
    try:
        changed = path.stat().st_mtime
    except FileNotFoundError:
        return False
    _, _, pid, _, machine = path.name.split(".", 4)
    if machine != platform.node():
        return time.time() - changed > FORGOTTEN_SECONDS
    return not _running(int(pid), changed)


def _running(pid: int, since: float) -> bool:
    """Whether process `pid` runs and is not a later one of the same number."""
    try:
        return psutil.Process(pid).create_time() <= since + CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return False


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent) / name)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Shards appear whole or not at all, whoever is killed and however many write; one run a folder."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workbench.errors import ResultError
from workbench.store import shards
from workbench.store.manifest import open_manifest, read_manifest
from workbench.store.shards import Shards

KEYS = [f"{number:03d}" for number in range(60)]
FILES = 20
PACKAGE = Path(shards.__file__).parent.parent
# The writer does without `import workbench`, which brings torch and takes seconds.
WRITER = f"""
import sys, types
sys.modules["workbench"] = types.ModuleType("workbench")
sys.modules["workbench"].__path__ = [{str(PACKAGE)!r}]
from pathlib import Path
from workbench.store.shards import Shards

shards = Shards(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for key in {KEYS!r}:
    if key not in shards:
        with shards.writing(key) as folder:
            for number in range({FILES}):
                (folder / f"{{number}}.txt").write_text(f"{{key}} {{number}}\\n" * 500)
            print(key, flush=True)
"""


def write(root: Path, key: str, text: str) -> None:
    with Shards(root).writing(key) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "text.txt").write_text(text)


def hidden(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.name.startswith(".")]


def start_writers(root: Path, count: int) -> list[subprocess.Popen[str]]:
    """Writers that begin at the same moment."""
    command = [sys.executable, "-c", WRITER, str(root)]
    writers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    return writers


def read_lines(writer: subprocess.Popen[str], count: int) -> None:
    assert writer.stdout is not None
    for _ in range(count):
        writer.stdout.readline()


def test_a_shard_is_there_when_its_block_has_ended(tmp_path: Path) -> None:
    found = Shards(tmp_path / "shards")
    assert found.keys() == []
    with found.writing("7") as folder:
        (folder / "text.txt").write_text("seven")
        assert "7" not in found
        assert found.keys() == []
    write(tmp_path / "shards", "10", "ten")
    assert "7" in found
    assert found.keys() == ["10", "7"]
    assert (found.folder("7") / "text.txt").read_text() == "seven"
    assert (found.folder("10") / "inner" / "text.txt").read_text() == "ten"
    assert hidden(tmp_path / "shards") == []


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Shards(tmp_path).writing("1") as folder:  # noqa: PT012
        (folder / "text.txt").write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ResultError, match="no shard '1'"):
        Shards(tmp_path).folder("1")


def test_of_two_writers_of_a_shard_the_first_to_finish_is_kept(tmp_path: Path) -> None:
    with Shards(tmp_path).writing("1") as late:
        (late / "text.txt").write_text("late")
        write(tmp_path, "1", "early")
    assert (tmp_path / "1" / "inner" / "text.txt").read_text() == "early"
    assert not (tmp_path / "1" / "text.txt").exists()
    assert hidden(tmp_path) == []


def test_a_replaced_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("old")
    with pytest.raises(KeyError), Shards(tmp_path).replacing(file) as new:  # noqa: PT012
        new.write_text("half")
        raise KeyError
    assert file.read_text() == "old"
    with Shards(tmp_path).replacing(file) as new:
        new.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert hidden(tmp_path) == []


def test_a_place_that_is_no_folder_is_not_taken_for_a_shard(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("a file")
    with pytest.raises(OSError, match="1"):
        write(tmp_path, "1", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_everything_is_brought_to_the_disk_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched(descriptor: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.split(".")[0])
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        seen.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(Path, "rename", renamed)
    write(tmp_path / "root", "1", "text")
    before, after = seen[: seen.index("rename")], seen[seen.index("rename") + 1 :]
    assert sorted(before) == ["", "inner", "text"]  # "" is the hidden folder itself
    assert after == ["root"]


def test_killed_and_competing_writers(tmp_path: Path) -> None:
    """After kills at random moments, with two writers at once, every shard is whole."""
    root, chance = tmp_path / "shards", random.Random(0)
    for _ in range(8):
        writers = start_writers(root, 2)
        read_lines(writers[0], chance.randint(1, 4))
        select.select([], [], [], chance.random() * 0.01)  # somewhere inside a shard
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.communicate()
    left = hidden(root)
    for writer in start_writers(root, 2):
        writer.communicate()
        assert writer.returncode == 0
    assert Shards(root).keys() == KEYS
    for key in KEYS:
        for number in range(FILES):
            assert (root / key / f"{number}.txt").read_text() == f"{key} {number}\n" * 500
        assert len(list((root / key).iterdir())) == FILES
    assert left
    Shards(root).sweep()
    assert hidden(root) == []


def test_sweep_spares_living_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Shards(tmp_path).writing("1") as folder:
        Shards(tmp_path).sweep()
        assert folder.is_dir()
        os.utime(folder, (0, 0))  # as if an earlier process of this number had made it
        Shards(tmp_path).sweep()
        assert not folder.exists()
        folder.mkdir()
        monkeypatch.setattr(shards.platform, "node", lambda: "elsewhere")
        Shards(tmp_path).sweep()
        assert folder.is_dir()
        os.utime(folder, (0, 0))
        Shards(tmp_path).sweep()
        assert not folder.exists()
        folder.mkdir()


def test_a_manifest_is_written_once(tmp_path: Path) -> None:
    content = {"model": {"weights": "abc", "layers": [1, 2]}, "shard_size": 10}
    open_manifest(tmp_path / "run", content, recorded={"device": "cpu"})
    first = (tmp_path / "run" / "manifest.json").read_bytes()
    open_manifest(tmp_path / "run", content, recorded={"device": "cuda"})
    assert (tmp_path / "run" / "manifest.json").read_bytes() == first
    assert read_manifest(tmp_path / "run") == content | {"recorded": {"device": "cpu"}}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["manifest.json"]


def test_tuples_are_compared_as_the_lists_that_they_become(tmp_path: Path) -> None:
    open_manifest(tmp_path, {"sites": ("a", "b")})
    open_manifest(tmp_path, {"sites": ["a", "b"]})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"model": {"weights": "other", "layers": 3}, "size": 1},
            'its model.weights is "abc", here "other"',
        ),
        ({"model": {"weights": "abc", "layers": 3}, "size": 2}, "its size is 1, here 2"),
        ({"model": {"weights": "abc", "layers": 3}}, "its size is 1, here missing"),
        (
            {"model": {"weights": "abc", "layers": 3}, "size": 1, "seed": 0},
            "its seed is missing, here 0",
        ),
    ],
)
def test_another_run_is_refused_with_the_difference(
    tmp_path: Path, other: dict[str, object], message: str
) -> None:
    content = {"model": {"weights": "abc", "layers": 3}, "size": 1}
    open_manifest(tmp_path, content)
    with pytest.raises(ResultError, match=message):
        open_manifest(tmp_path, other)
    assert read_manifest(tmp_path) == content | {"recorded": {}}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([*range(100), 200], r"its sites has \[100\] only there and \[200\] only here;"),
        ([*range(100)], r"its sites has \[100\] only there;"),
        ([*range(102)], r"its sites has \[101\] only here;"),
        ([*range(100, -1, -1)], "its sites has the same items in another order or number;"),
    ],
)
def test_of_long_lists_the_difference_alone_is_said(
    tmp_path: Path, other: list[int], message: str
) -> None:
    open_manifest(tmp_path, {"sites": [*range(101)]})
    with pytest.raises(ResultError, match=message):
        open_manifest(tmp_path, {"sites": other})


def test_of_many_runs_at_once_one_has_the_folder(tmp_path: Path) -> None:
    def attempt(seed: int) -> bool:
        try:
            open_manifest(tmp_path / "run", {"seed": seed})
        except ResultError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(attempt, range(16)))
    assert sum(won) == 1
    assert won.index(True) == read_manifest(tmp_path / "run")["seed"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["manifest.json"]


def foreign(folder: Path) -> None:
    (folder / "thesis.tex").write_text("")


def not_json(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"model": ')


def no_object(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps([1]))


def test_a_manifest_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    for call in (lambda: read_manifest(tmp_path), lambda: open_manifest(tmp_path, {})):
        with pytest.raises(ResultError, match="manifest.json cannot be read: Is a directory$"):
            call()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (foreign, "holds 'thesis.tex' and no manifest.json"),
        (not_json, "manifest.json cannot be read"),
        (no_object, "expected a JSON object"),
    ],
)
def test_folders_that_cannot_be_used(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ResultError, match=message):
        open_manifest(tmp_path, {"seed": 0})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_missing_places(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no manifest.json in"):
        read_manifest(tmp_path)
    with pytest.raises(ResultError, match="cannot be used: No such file or directory"):
        open_manifest(tmp_path / "none" / "run", {})

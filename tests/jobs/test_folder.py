"""Stored results: keys that are no paths, and what goes when room is short."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import xarray as xr

import workbench as wb
from workbench.jobs.folder import ResultFolder

KEYS = [digit * 64 for digit in "abcd"]


@pytest.fixture
def kept(tmp_path: Path) -> ResultFolder:
    """Four results of like size, used at second 0, 1, 2 and 3."""
    kept = ResultFolder(tmp_path)
    result = wb.Result.of(xr.Dataset({"x": ("n", [1.0])}), instrument="toy", provenance={})
    for second, key in enumerate(KEYS):
        kept.save(key, result)
        os.utime(kept.path(key), (second, second))
    return kept


def left(kept: ResultFolder) -> list[str]:
    return sorted(path.stem for path in kept.root.glob("*.nc"))


@pytest.mark.parametrize("key", ["../../etc/passwd", "", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_a_key_is_no_path(key: str, kept: ResultFolder) -> None:
    with pytest.raises(wb.ResultError, match="is no key of a result"):
        kept.load(key)


def test_a_result_that_is_not_stored_is_named(kept: ResultFolder) -> None:
    with pytest.raises(wb.ResultError, match="no stored result eeeeeeeeeeee"):
        kept.load("e" * 64)


def test_the_least_recently_used_go_first(kept: ResultFolder) -> None:
    size = kept.path(KEYS[0]).stat().st_size
    kept.load(KEYS[0])
    kept.prune(2 * size, used_before=float("inf"))
    assert left(kept) == [KEYS[0], KEYS[3]]


def test_what_running_jobs_may_need_stays(kept: ResultFolder) -> None:
    kept.prune(0, used_before=2.0)
    assert left(kept) == KEYS[2:]


def test_what_fits_stays(kept: ResultFolder) -> None:
    kept.prune(2**20, used_before=float("inf"))
    assert left(kept) == KEYS


def test_what_a_killed_process_left_goes(kept: ResultFolder) -> None:
    for name, second in {".unfinished-old": 0.0, ".unfinished-new": None}.items():
        folder = kept.root / name
        folder.mkdir()
        (folder / "part.nc").write_text("half")
        if second is not None:
            os.utime(folder, (second, second))
    kept.prune(2**20, used_before=float("inf"))
    assert [path.name for path in kept.root.glob(".unfinished-*")] == [".unfinished-new"]

"""Tidy rows as Parquet: types, pairs, and one schema whatever is missing where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow.dataset
import pytest

from workbench.errors import ResultError
from workbench.report.tables import CHUNK, frame, settle, write
from workbench.store.shards import Shards

PAIRS = pl.List(pl.Struct({"token": pl.String(), "score": pl.Float64()}))


def test_types_and_values() -> None:
    rows = [
        {"name": "a", "whole": 1, "part": 0.5, "mixed": 1, "flag": True, "top": [["x", -1.0]]},
        {"name": "b", "whole": None, "part": 2.0, "mixed": 0.5, "flag": None, "top": None},
    ]
    table = frame([*rows, {"name": "c", "more": "z"}])
    assert dict(table.schema) == {
        "name": pl.String(),
        "whole": pl.Int64(),
        "part": pl.Float64(),
        "mixed": pl.Float64(),
        "flag": pl.Boolean(),
        "top": PAIRS,
        "more": pl.String(),
    }
    assert table["whole"].to_list() == [1, None, None]
    assert table["mixed"].to_list() == [1.0, 0.5, None]
    assert table["top"].to_list() == [[{"token": "x", "score": -1.0}], None, None]
    assert table["more"].to_list() == [None, None, "z"]


def test_chunks_of_different_types_join() -> None:
    rows: list[dict[str, Any]] = [{"x": None}] * CHUNK + [{"x": 1}] * CHUNK + [{"x": 0.5, "y": "t"}]
    table = frame(rows)
    assert dict(table.schema) == {"x": pl.Float64(), "y": pl.String()}
    assert table.height == 2 * CHUNK + 1
    assert table["x"].sum() == CHUNK + 0.5


def test_lists_of_numbers_keep_their_type() -> None:
    table = frame([{"units": [3, 1], "weights": [0.5, 2.0]}, {"units": [], "weights": None}])
    assert table.schema == {"units": pl.List(pl.Int64), "weights": pl.List(pl.Float64)}
    assert table["units"].to_list() == [[3, 1], []]


@pytest.mark.parametrize(
    ("values", "found"),
    [((1, "a"), "int, str"), (({},), "dict"), ((["a"],), "lists of"), (([1, 0.5],), "lists of")],
)
def test_values_of_no_plain_type_are_refused(values: tuple[Any, ...], found: str) -> None:
    with pytest.raises(ResultError, match=f"column 'x' .*{found}"):
        frame([{"x": value} for value in values])


def shard(root: Path, key: str, rows: list[dict[str, Any]]) -> Path:
    with Shards(root).writing(key) as folder:
        write(frame(rows), folder / "rows.parquet")
    return root / key / "rows.parquet"


def test_settled_shards_are_one_table_for_every_reader(tmp_path: Path) -> None:
    """Of a rank that is missing in the first shard, a column of the last one, and an empty one."""
    parts: list[list[dict[str, Any]]] = [
        [{"prompt": 0, "rank": None, "top": None, "empty": None}],
        [{"prompt": 1, "rank": 7, "top": [["x", -0.5]], "empty": None, "more": None}],
        [{"rank": 8, "prompt": 2, "top": [["y", -1.5]], "empty": None, "more": 0.5}],
    ]
    paths = [shard(tmp_path, str(key), rows) for key, rows in enumerate(parts)]
    before = {path: path.stat().st_ino for path in paths}
    settle(Shards(tmp_path), paths)
    expected = [(0, None, None, None, None), (1, 7, "x", None, None), (2, 8, "y", None, 0.5)]

    lazily = pl.scan_parquet(tmp_path / "*" / "rows.parquet")
    assert [str(kind) for kind in lazily.collect_schema().dtypes()][:2] == ["Int64", "Int64"]
    token = pl.col("top").list.first().struct.field("token")
    assert (
        lazily.with_columns(token)
        .select("prompt", "rank", "token", "empty", "more")
        .collect()
        .rows()
        == expected
    )

    arrow = pyarrow.dataset.dataset(paths).to_table()
    assert arrow["rank"].to_pylist() == [None, 7, 8]
    with_pandas = pd.read_parquet(paths)
    assert with_pandas["rank"].tolist()[1:] == [7, 8]
    assert with_pandas["more"].tolist()[2] == 0.5

    settled = {path: path.stat().st_ino for path in paths}
    assert settled != before
    settle(Shards(tmp_path), paths)
    assert {path: path.stat().st_ino for path in paths} == settled
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

"""Tidy rows as Parquet files of one schema, however their numbers are spread over the shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from workbench.errors import ResultError
from workbench.store.shards import Shards

__all__ = ["frame", "settle", "write"]

CHUNK = 20_000  # rows that are Python objects at a time
PAIRS = pl.List(pl.Struct({"token": pl.String, "score": pl.Float64}))
PLAIN = {bool: pl.Boolean(), int: pl.Int64(), float: pl.Float64(), str: pl.String()}
NUMBERS = {int: pl.Int64(), float: pl.Float64()}

Row = Mapping[str, Any]


def frame(rows: Iterable[Row]) -> pl.DataFrame:
    """Rows as a table: numbers, texts, lists of numbers, and [token, score] pairs as structs.

    A column without a value has the type Null; see `settle`.

    Raises:
        ResultError: a column holds values of several types.
    """
    parts = [_part(chunk) for chunk in _chunks(rows)]
    return pl.concat(parts, how="diagonal_relaxed") if parts else pl.DataFrame()


def write(table: pl.DataFrame, path: Path) -> None:
    """Write a table with zstd."""
    table.write_parquet(path, compression="zstd")


def settle(shards: Shards, paths: Sequence[Path]) -> None:
    """Give all these files the same columns and types, so that any program reads them as one table.

    A column that is empty in one shard has no type there, and gets that of the others. Only files
    that differ are written anew, each of them whole.
    """
    schemas = {path: pl.read_parquet_schema(path) for path in paths}
    common = _common(schemas.values())
    for path, schema in schemas.items():
        if list(schema.items()) != list(common.items()):
            table = pl.read_parquet(path)
            absent = [pl.lit(None).alias(name) for name in common if name not in schema]
            with shards.replacing(path) as new:
                write(table.with_columns(absent).select(list(common)).cast(pl.Schema(common)), new)


def _common(schemas: Iterable[Mapping[str, pl.DataType]]) -> dict[str, pl.DataType]:
    empty = [pl.DataFrame(schema=schema) for schema in schemas]
    return dict(pl.concat(empty, how="diagonal_relaxed").schema)


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _part(rows: Sequence[Row]) -> pl.DataFrame:
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame([_column(name, [row.get(name) for row in rows]) for name in names])


def _column(name: str, values: Sequence[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {list}:
        inner = {type(item) for one in values if one is not None for item in one}
        if len(inner) == 1 and inner <= NUMBERS.keys():
            return pl.Series(name, values, dtype=pl.List(NUMBERS[inner.pop()]))
        return _pairs(name, values)
    if kinds == {int, float}:
        kinds = {float}
    if len(kinds) > 1 or not kinds <= PLAIN.keys():
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ResultError(f"column {name!r} of the rows holds {found}: expected one plain type")
    return pl.Series(name, values, dtype=PLAIN[kinds.pop()] if kinds else pl.Null(), strict=False)


def _pairs(name: str, values: Sequence[list[Any] | None]) -> pl.Series:
    try:
        structs = [
            None if pairs is None else [{"token": token, "score": score} for token, score in pairs]
            for pairs in values
        ]
    except (TypeError, ValueError):
        raise ResultError(
            f"column {name!r} of the rows: expected lists of numbers of one type, or of [token, score]"
        ) from None
    return pl.Series(name, structs, dtype=PAIRS)

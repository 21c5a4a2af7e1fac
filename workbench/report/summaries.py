"""Numbers over prompts from tidy rows, lazily: a prompt is the unit, however many rows it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from workbench.report.intervals import (
    ANY,
    Interval,
    mean_interval,
    median_interval,
    share_interval,
)

__all__ = ["at_last_position", "means", "medians", "shares"]

SUMMARY = {"value": pl.Float64(), "low": pl.Float64(), "high": pl.Float64(), "n": pl.Int64()}


def means(
    rows: pl.LazyFrame, column: str, by: Sequence[str], possible: tuple[float, float] = ANY
) -> pl.DataFrame:
    """Mean over prompts of each prompt's own mean, for every group.

    Args:
        rows: tidy rows.
        column: of the numbers.
        by: columns of the groups.
        possible: the least and the largest that the quantity can be; intervals are cut there.

    Returns:
        Columns `by`, value, low and high (Student's 95%; null for n < 2), and n, the prompts.
    """
    return _summarised(rows, column, by, lambda values: mean_interval(values, possible))


def medians(rows: pl.LazyFrame, column: str, by: Sequence[str]) -> pl.DataFrame:
    """Median over prompts of each prompt's own mean, with the interval of `median_interval`."""
    return _summarised(rows, column, by, median_interval)


def shares(rows: pl.LazyFrame, column: str, by: Sequence[str]) -> pl.DataFrame:
    """Share over prompts of each prompt's own share of rows whose `column` is true.

    With Wilson's 95% for one trial a prompt: wide enough however a prompt's rows hang together, since
    no quantity between 0 and 1 varies more than one that is 0 or 1.
    """
    return _summarised(
        rows, column, by, lambda values: share_interval(float(values.sum()), len(values))
    )


def at_last_position(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Each prompt's rows at the last of its positions that was read."""
    last = rows.group_by("prompt").agg(pl.col("position").max())
    return rows.join(last, on=["prompt", "position"], how="semi")


def _summarised(
    rows: pl.LazyFrame,
    column: str,
    by: Sequence[str],
    interval: Callable[[NDArray[np.float64]], Interval],
) -> pl.DataFrame:
    groups = (
        rows.group_by(*by, "prompt")
        .agg(pl.col(column).cast(pl.Float64).mean().alias("value"))
        .drop_nulls("value")
        .group_by(by)
        .agg("value")
        .collect(engine="streaming")
        .sort(by)
    )
    found = [_summary(interval(values.to_numpy()), len(values)) for values in groups["value"]]
    return groups.drop("value").hstack(pl.DataFrame(found, schema=SUMMARY))


def _summary(found: Interval, n: int) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high, "n": n}

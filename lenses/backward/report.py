"""The backward lens in a report: does the shift point to the target, and do its controls too?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import polars as pl

from workbench.report.charts import layer_lines
from workbench.report.sections import (
    POINTWISE,
    Headline,
    Listing,
    Plot,
    Section,
    headline,
    prompts_of,
)
from workbench.report.summaries import at_last_position, means, medians, shares

__all__ = ["section"]

RANKS = {
    "target_rank": "shift",
    "rest_rank": "rest",
    "random_target_rank": "random target: shift",
    "random_target_rest_rank": "random target: rest",
    "twin_rank": "twin: shift",
    "twin_rest_rank": "twin: rest",
}
DRAWN = ("target_rank", "rest_rank", "random_target_rest_rank", "twin_rest_rank")
SHOWN = 8
TAUTOLOGY = (
    "That the target comes first in the shift proves nothing: the last norm and the unembedding alone "
    "send that gradient down the residual stream, in a model that was never trained and for any target. "
    "What can be said of this model is what the rest (the shift less that skip path) shows and the "
    "random target and the twin do not."
)
WHERE = (
    "at the last position of each prompt (of a target of several tokens, where its last is predicted), "
    "where it is one of the dominant ones"
)


def section(rows: pl.LazyFrame) -> Section:
    """Ranks of the target in shift and rest beside their controls, and who writes the gradient."""
    last = at_last_position(rows)
    written = last.filter(pl.col("target_rank").is_not_null(), pl.col("shift").is_not_null())
    maps = rows.select(pl.col("map").unique(maintain_order=True)).collect()["map"].to_list()
    writing = written.select(pl.col("map").unique(maintain_order=True)).collect()["map"].to_list()
    return Section(
        headlines=[h for name in writing for h in _first(written, name)],
        plots=[
            *(_ranks(written, name) for name in writing),
            _share(last, maps),
        ],
        listings=[_closest(written, name) for name in writing],
        remarks=[TAUTOLOGY] if writing else [],
    )


def _first(written: pl.LazyFrame, name: str) -> Iterator[Headline]:
    """How often the target comes first, over all layers, of the model and of its controls."""
    present = written.collect_schema().names()
    of_map = written.filter(pl.col("map") == name).with_columns(every=pl.lit(0))
    for column, label in RANKS.items():
        if column not in present or not label.endswith("shift"):
            continue
        each = of_map.group_by("every", "prompt").agg((pl.col(column) == 1).all().alias("hit"))
        found = shares(each, "hit", ["every"])
        if len(found):
            yield headline(
                f"Target first at every layer, {label} of {name}",
                "share",
                found,
                f"{WHERE}; share of prompts, Wilson's interval",
            )


def _ranks(written: pl.LazyFrame, name: str) -> Plot:
    present = [c for c in DRAWN if c in written.collect_schema().names()]
    of_map = written.filter(pl.col("map") == name)
    tables = [
        medians(of_map, column, ["layer"]).with_columns(line=pl.lit(RANKS[column]))
        for column in present
        if of_map.select(pl.col(column).count()).collect().item()
    ]
    table = pl.concat(tables)
    figure = layer_lines(
        table,
        "rank of the target (1 = best)",
        line="line",
        names=[RANKS[column] for column in present],
        type="log",
    )
    caption = (
        f"Median over prompts of the target's rank in what {name} would write, {WHERE}, with its "
        f"order-statistic interval. {prompts_of(table)} {POINTWISE}"
    )
    return Plot(f"Rank of the target, {name}", caption, figure, table)


def _share(last: pl.LazyFrame, maps: list[str]) -> Plot:
    table = means(last, "share", ["map", "layer"])
    figure = layer_lines(table, "share of |G|²", line="map", names=maps)
    caption = (
        "How much of each gradient is written at the prompt's last position (signed; the shares of a "
        f"prompt sum to 1): mean over prompts, Student's interval. {prompts_of(table)} {POINTWISE}"
    )
    return Plot("Who writes: the last position", caption, figure, table)


def _closest(written: pl.LazyFrame, name: str) -> Listing:
    """The prompts whose target stands best in the rest, by the mean over layers of its log rank."""
    logs = pl.col("rest_rank").cast(pl.Float64).log(10)
    table = (
        written.filter(pl.col("map") == name)
        .group_by("prompt")
        .agg(logs.mean().alias("mean"), pl.col("target").first())
        .drop_nulls("mean")
        .sort("mean", "prompt")
        .head(SHOWN)
        .collect()
    )
    values = [math.pow(10, value) for value in table["mean"]]
    return Listing(
        f"Best in the rest of {name}",
        "The prompts whose target stands best once the skip path is taken off: geometric mean of its "
        "rank over the layers.",
        table.drop("mean").with_columns(pl.Series("rank", values, dtype=pl.Float64)),
    )

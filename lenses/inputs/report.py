"""Input attribution in a report: how much of a query is its own token's, by method and layer."""

from __future__ import annotations

import polars as pl

from workbench.report.charts import layer_lines
from workbench.report.sections import POINTWISE, Headline, Listing, Plot, Section, prompts_of
from workbench.report.summaries import means

__all__ = ["section"]

SHARES = ("alti", "rollout", "alti_rollout")
SHOWN = 10


def section(rows: pl.LazyFrame) -> Section:
    """The share of a query's own token by layer, and the keys that bring most."""
    own = _own(rows)
    table = means(own, "weight", ["method", "layer"], (0.0, 1.0))
    if table.is_empty():
        return Section(
            remarks=["No method with shares by layer was measured: the rows have the weights."],
            listings=[_most(rows)],
        )
    names = [name for name in SHARES if name in table["method"]]
    last = table.filter(pl.col("layer") == pl.col("layer").max())
    headlines = [
        Headline(
            f"own token's share at the last layer, {row['method'].replace('_', ' ')}",
            row["value"],
            row["low"],
            row["high"],
            "share",
            row["n"],
            "mean over prompts, Student's interval",
        )
        for row in last.iter_rows(named=True)
    ]
    plot = Plot(
        "What of a query is its own token's",
        f"Mean share that the token at the query itself has of it. {prompts_of(table)} {POINTWISE}",
        layer_lines(table, "share", line="method", names=names),
        table,
    )
    return Section(headlines=headlines, plots=[plot], listings=[_most(rows)])


def _own(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.filter(pl.col("method").is_in(SHARES) & (pl.col("query") == pl.col("key")))


def _most(rows: pl.LazyFrame) -> Listing:
    """The tokens other than its own that bring most to a query, of the method that says most."""
    others = rows.filter((pl.col("query") != pl.col("key")) & pl.col("head").is_null())
    last = others.filter(pl.col("layer").is_null() | (pl.col("layer") == pl.col("layer").max()))
    best = last.sort("weight", "prompt", descending=[True, False])
    columns = ("prompt", "query_token", "key_token", "key", "weight")
    each = best.group_by("method", maintain_order=True).head(SHOWN).select("method", *columns)
    return Listing(
        "Tokens that bring most",
        f"Of each method at the last layer, the {SHOWN} greatest weights of a key other than the query "
        "itself. Of shares in shares, of gradients in logits.",
        each.collect(),
    )

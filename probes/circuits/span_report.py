"""Span traces in a report: where the largest effects lie, and what it took to find them."""

from __future__ import annotations

import polars as pl

from probes.circuits.reading import SITES
from workbench.report.charts import layer_lines
from workbench.report.sections import POINTWISE, Plot, Section, headline, prompts_of
from workbench.report.summaries import means

__all__ = ["section"]

REMARK = (
    "Effects are exact, of single tokens or of spans that were patched whole; spans of small effect were not "
    "looked into."
)


def section(rows: pl.LazyFrame) -> Section:
    """The share of the whole grid's work, and the largest effect of a single token by layer."""
    share = pl.col("block_tokens").cast(pl.Float64) / pl.col("grid_block_tokens")
    work = means(rows.with_columns(every=pl.lit(0), share=share), "share", ["every"])
    note = (
        "mean over prompts of block-tokens over those of every token by itself, Student's interval"
    )
    return Section(
        headlines=[headline("Work of the whole grid", "share", work, note)],
        plots=[_largest(rows)],
        remarks=[REMARK],
    )


def _largest(rows: pl.LazyFrame) -> Plot:
    """Each prompt's largest effect of a single token at each layer; of none where none was split so far."""
    best = (
        rows.filter(pl.col("single"))
        .with_columns(pl.col("effect").cast(pl.Float64).abs(), pl.col("site").replace(SITES))
        .group_by("prompt", "site", "layer")
        .agg(pl.col("effect").max())
    )
    table = means(best, "effect", ["site", "layer"])
    names = [name for name in SITES.values() if name in set(table["site"])]
    return Plot(
        "Largest effect of a single token by layer",
        "Each prompt's largest absolute effect among tokens that were patched by themselves (0 before the "
        f"corruption); mean over prompts, Student's interval, in the metric's unit. {prompts_of(table)} "
        f"{POINTWISE}",
        layer_lines(table, "largest |effect|", line="site", names=names),
        table,
    )

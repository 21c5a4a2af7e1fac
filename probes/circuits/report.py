"""Attribution patching in a report: how far it can be trusted, and where the largest effects lie."""

from __future__ import annotations

import polars as pl

from probes.circuits.reading import SITES
from workbench.report.charts import layer_lines
from workbench.report.sections import POINTWISE, Headline, Plot, Section, headline, prompts_of
from workbench.report.summaries import means

__all__ = ["section"]

REMARK = (
    "Effects are a first-order approximation: the gradient of the metric times the difference of the two "
    "runs' activations. Nothing was patched for them. A ranking of cells by them is as good as its rank "
    "correlation with exact effects, which is given where those were measured."
)


def section(rows: pl.LazyFrame) -> Section:
    """Rank correlations, and the largest effect of each layer by site."""
    grid = rows.filter(pl.col("head").is_null()).with_columns(pl.col("site").replace(SITES))
    return Section(headlines=_ranks(grid), plots=[_largest(grid)], remarks=[REMARK])


def _ranks(grid: pl.LazyFrame) -> list[Headline]:
    """The mean over prompts of each site's rank correlation; none where nothing exact was measured."""
    numbers = grid.with_columns(pl.col("rank_correlation").cast(pl.Float64))
    found = means(numbers, "rank_correlation", ["site"], (-1.0, 1.0))
    note = "mean over prompts of Spearman's correlation with exact effects, Student's interval"
    return [
        headline(f"Rank correlation, {row['site']}", "", pl.DataFrame([row]), note)
        for row in found.iter_rows(named=True)
    ]


def _largest(grid: pl.LazyFrame) -> Plot:
    """Each prompt's largest absolute effect at any position, by layer; exact ones beside."""
    kinds = {"effect": "approximate", "exact_effect": "exact"}
    parts = [
        grid.select("prompt", "site", "layer", value=pl.col(name).cast(pl.Float64).abs())
        .group_by("prompt", "site", "layer")
        .agg(pl.col("value").max())
        .with_columns(kind=pl.format("{}, {}", "site", pl.lit(kind)))
        for name, kind in kinds.items()
    ]
    table = means(pl.concat(parts), "value", ["kind", "layer"])
    names = sorted(table["kind"].unique().to_list())
    return Plot(
        "Largest effect by layer",
        "Each prompt's largest effect at any position, by its absolute value; mean over prompts, Student's "
        f"interval, in the metric's unit. {prompts_of(table)} {POINTWISE}",
        layer_lines(table, "largest |effect|", line="kind", names=names),
        table,
    )

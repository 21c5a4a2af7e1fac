"""Sharpness of attention in a report: entropy and its growth by layer, beside uniform and the twin."""

from __future__ import annotations

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
from workbench.report.summaries import means

__all__ = ["section"]

HEADS = 5  # in a list
SHARE = (0.0, 1.0)
SAID = "mean of each prompt's layers and heads, then over prompts, Student's interval"
ENTROPY = {"entropy": "heads", "entropy_uniform": "uniform", "entropy_twin": "untrained twin"}
GROWTH = {"growth": "heads", "growth_uniform": "uniform", "growth_twin": "untrained twin"}


def section(rows: pl.LazyFrame) -> Section:
    """Headlines, both quantities along the layers, and the heads that stand out."""
    rows = rows.with_columns(
        growth_uniform=pl.when(pl.col("growth").is_not_null()).then(pl.lit(1.0))
    )
    plots = [
        _plot(rows, "Entropy of attention", "entropy, nat", ENTROPY),
        _plot(rows, "Growth of entropy with visible keys", "dH / d ln n", GROWTH),
    ]
    listings = [
        _listing(rows, "entropy", "Heads of least entropy", beside="entropy_uniform"),
        _listing(
            rows,
            "sink",
            "Heads with most weight on the first token",
            beside="sink_uniform",
            descending=True,
        ),
        _listing(
            rows, "growth", "Heads whose entropy grows least with context", beside="growth_twin"
        ),
    ]
    return Section(
        headlines=_headlines(rows),
        plots=[plot for plot in plots if plot is not None],
        listings=[listing for listing in listings if not listing.table.is_empty()],
        remarks=[
            "Uniform attention has entropy ln n over n visible keys, and grows with slope 1 on ln n; "
            "attention of an entropy that context does not change has slope 0. Slopes are over the "
            "queries of each prompt with 4 keys or more; a prompt of fewer than 8 such queries has "
            "none. The first heads of many are ahead by selection alone: each interval is that of its "
            "head by itself."
        ],
    )


def _headlines(rows: pl.LazyFrame) -> list[Headline]:
    every = rows.with_columns(every=pl.lit(0))
    said = {
        "entropy_share": ("entropy as a share of uniform attention's", "share", SHARE),
        "growth": (
            "growth dH / d ln n (uniform: 1)",
            "nat / ln key",
            (-float("inf"), float("inf")),
        ),
        "growth_twin": (
            "growth of the untrained twin",
            "nat / ln key",
            (-float("inf"), float("inf")),
        ),
    }
    tables = {name: means(every, name, ["every"], ends) for name, (_, _, ends) in said.items()}
    return [
        headline(said[name][0], said[name][1], table, SAID)
        for name, table in tables.items()
        if not table.is_empty()
    ]


def _plot(rows: pl.LazyFrame, title: str, label: str, names: dict[str, str]) -> Plot | None:
    parts = [
        means(rows, column, ["layer"]).with_columns(line=pl.lit(name))
        for column, name in names.items()
    ]
    table = pl.concat(parts)
    if table.is_empty():
        return None
    return Plot(
        title,
        f"Mean over the heads of a layer. {prompts_of(table)} {POINTWISE}",
        layer_lines(table, label, line="line", names=list(names.values())),
        table,
    )


def _listing(
    rows: pl.LazyFrame, column: str, title: str, *, beside: str = "", descending: bool = False
) -> Listing:
    by = ["layer", "head"]
    table = means(rows, column, by)
    said = f"Mean over prompts of {column.replace('_', ' ')}, with its 95% interval"
    if beside:
        control = means(rows.filter(pl.col(column).is_not_null()), beside, by)
        control = control.select(*by, pl.col("value").alias(beside))
        table = table.join(control, on=by, how="left", maintain_order="left")
        said += f", and of its control {beside.replace('_', ' ')} over the same prompts"
    ordered = table.sort("value", *by, descending=[descending, False, False])
    return Listing(title, f"{said}.", ordered.head(HEADS).rename({"value": column, "n": "prompts"}))

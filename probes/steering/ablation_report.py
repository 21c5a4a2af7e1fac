"""A probe's ablation in a report: the loss in class and out of it, along the layers."""

from __future__ import annotations

import polars as pl

from workbench.report.charts import layer_lines
from workbench.report.sections import POINTWISE, Listing, Plot, Section, prompts_of
from workbench.report.summaries import means

__all__ = ["section"]

LINES = {"probe's units": "effect", "random units": "random_effect"}
CLASSES = {"in": "In class", "out": "Out of class"}


def section(rows: pl.LazyFrame) -> Section:
    """A plot of each class, and a table of both with the difference to the control."""
    paired = rows.with_columns(difference=pl.col("effect") - pl.col("random_effect"))
    present = rows.select(pl.col("class").unique()).collect()["class"].to_list()
    return Section(
        plots=[_plot(paired, one, title) for one, title in CLASSES.items() if one in present],
        listings=[_listing(paired)],
        remarks=[
            "Other units may make up for those that are missing: a loss that stays is no proof that they "
            "do nothing."
        ],
    )


def _plot(rows: pl.LazyFrame, which: str, title: str) -> Plot:
    own = rows.filter(pl.col("class") == which)
    long = pl.concat(
        [
            own.select("prompt", "layer", pl.lit(line).alias("set"), pl.col(name).alias("value"))
            for line, name in LINES.items()
        ]
    )
    table = means(long, "value", ["set", "layer"])
    figure = layer_lines(table, "change of the loss, nat / token", line="set", names=list(LINES))
    said = (
        "Loss without the probe's units less that of the model as it is, beside as many random units of the "
        "same layer; mean of each prompt's tokens, then over prompts."
    )
    return Plot(title, f"{said} {prompts_of(table)} {POINTWISE}", figure, table)


def _listing(rows: pl.LazyFrame) -> Listing:
    table = means(rows, "difference", ["class", "layer"])
    return Listing(
        "Beyond the control",
        "Change of the loss with the probe's units less that with random ones, prompt by prompt: mean and "
        "Student's 95% interval over prompts.",
        table,
    )

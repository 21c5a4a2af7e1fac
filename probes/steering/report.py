"""Steering in a report: answers in class along the layers, and a table with intervals over prompts."""

from __future__ import annotations

import polars as pl

from workbench.report.charts import layer_lines
from workbench.report.sections import POINTWISE, Listing, Plot, Section, prompts_of
from workbench.report.summaries import means

__all__ = ["section"]

LINES = ("steered", "random", "not steered")
NUMBERS = dict(zip(LINES, ("p_in", "random_p_in", "clean_p_in"), strict=True))
PROBABILITY = (0.0, 1.0)


def section(rows: pl.LazyFrame) -> Section:
    """A plot a strength of prompts out of class; a listing of both classes."""
    strengths = rows.select(pl.col("strength").unique().sort()).collect()["strength"].to_list()
    lacking = rows.filter(pl.col("class") == "out")
    if lacking.select(pl.len()).collect().item() == 0:
        return Section(remarks=["No prompt lacks the feature, so none was steered towards it."])
    return Section(
        plots=[_plot(lacking.filter(pl.col("strength") == one), one) for one in strengths],
        listings=[_listing(rows)],
        remarks=[
            "A direction that changes the answers is one that later blocks read; that the model uses it "
            "where it is not steered does not follow."
        ],
    )


def _plot(rows: pl.LazyFrame, strength: float) -> Plot:
    long = pl.concat(
        [
            rows.select("prompt", "layer", pl.lit(line).alias("run"), pl.col(name).alias("value"))
            for line, name in NUMBERS.items()
        ]
    )
    table = means(long, "value", ["run", "layer"], PROBABILITY)
    label = "probability of answers in class"
    feature = rows.select(pl.col("feature").first()).collect().item()
    said = (
        f"Steered towards {feature}: probability of all answers in class together, behind prompts that lack "
        "the feature."
    )
    figure = layer_lines(table, label, line="run", names=LINES)
    return Plot(f"Strength {strength:g}", f"{said} {prompts_of(table)} {POINTWISE}", figure, table)


def _listing(rows: pl.LazyFrame) -> Listing:
    by = ["class", "layer", "strength"]
    numbers = [
        f"{kind}{name}"
        for name in ("p_in", "p_out", "top_in")
        for kind in ("", "random_", "clean_")
    ]
    table = (
        rows.group_by(by).agg(pl.len().alias("prompts"), pl.col(numbers).mean()).sort(by).collect()
    )
    return Listing(
        "Both classes",
        "Means over prompts: probability of the answers in class and out of it, and the share of prompts "
        "whose likeliest token is an answer in class; beside random directions of the same norm, and the "
        "model as it is.",
        table,
    )

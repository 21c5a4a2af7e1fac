"""Direct attribution in a report: who writes the logit, on average over the prompts."""

from __future__ import annotations

import polars as pl

from lenses.attribution.words import NAMES
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
from workbench.report.summaries import at_last_position, means

__all__ = ["section"]

SHOWN = 10
LAST = "at the last position read of each prompt"
MEAN = "mean over prompts, Student's interval"


def section(rows: pl.LazyFrame) -> Section:
    """The section of direct attribution, from the tidy rows of all prompts.

    Everything is taken at the last position read of each prompt.
    """
    last = at_last_position(rows).with_columns(
        pl.col("layer", "head").cast(pl.Int64), pl.col("contribution").cast(pl.Float64)
    )
    return Section(
        headlines=[_logit(last), *_worst(rows)],
        plots=[_branches(last)],
        listings=_heads(last),
        remarks=[_directions(last)],
    )


def _each(last: pl.LazyFrame) -> pl.LazyFrame:
    """One row a prompt."""
    return last.filter(pl.col("component") == "embed").with_columns(every=pl.lit(0))


def _logit(last: pl.LazyFrame) -> Headline:
    found = means(_each(last), "logit", ["every"])
    return headline("Logit that is attributed", "logit", found, f"{LAST}; {MEAN}")


def _worst(rows: pl.LazyFrame) -> list[Headline]:
    worst = rows.select(
        value=pl.col("residual").cast(pl.Float64).abs().max(), n=pl.col("prompt").n_unique()
    )
    value, n = worst.collect(engine="streaming").row(0)
    if value is None:
        return []
    note = "largest |sum of all terms - logit| at any position"
    return [Headline("Worst residual of the sum", value, None, None, "logit", n, note)]


def _branches(last: pl.LazyFrame) -> Plot:
    names = list(NAMES)
    named = last.filter(pl.col("component").is_in(names)).with_columns(
        pl.col("component").replace(NAMES)
    )
    table = means(named, "contribution", ["component", "layer"])
    figure = layer_lines(table, "contribution, logit", line="component", names=[*NAMES.values()])
    return Plot(
        "Who writes the logit",
        f"Mean contribution of each component to the attributed logit, {LAST} (Student's interval). "
        f"{prompts_of(table)} {POINTWISE}",
        figure,
        table,
    )


def _heads(last: pl.LazyFrame) -> list[Listing]:
    table = means(last.filter(pl.col("component") == "head"), "contribution", ["layer", "head"])
    if table.is_empty():
        return []
    first = table.sort(pl.col("value").abs(), descending=True).head(SHOWN)
    caption = (
        f"The {first.height} heads with the largest mean contribution by its absolute value, in logit, "
        f"{LAST}. Intervals are each head's own (Student's, 95%); as these were chosen among "
        f"{table.height} heads by the same prompts, their means are a little too large."
    )
    return [Listing("Heads that stand out", caption, first.rename({"value": "contribution"}))]


def _directions(last: pl.LazyFrame) -> str:
    """Of how many prompts what is attributed."""
    kinds = _each(last).select(
        foil=pl.col("foil").is_not_null().sum(),
        mean=(pl.col("foil").is_null() & pl.col("target_given")).sum(),
        own=(~pl.col("target_given")).sum(),
    )
    foil, mean, own = kinds.collect(engine="streaming").row(0)
    said = {
        "target - foil": foil,
        "target - mean of the vocabulary": mean,
        "the model's own top token - mean of the vocabulary": own,
    }
    counted = "; ".join(f"{kind} in {n} prompts" for kind, n in said.items() if n)
    return (
        "What is attributed is a difference of logits, before a soft-cap where the family has one: "
        f"{counted}."
    )

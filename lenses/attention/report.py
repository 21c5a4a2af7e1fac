"""Attention in a report: the heads that score highest over the prompts, beside chance."""

from __future__ import annotations

import polars as pl

from workbench.report.charts import layer_lines
from workbench.report.sections import POINTWISE, Headline, Listing, Plot, Section, prompts_of
from workbench.report.summaries import means

__all__ = ["section"]

SCORES = ("induction", "previous", "duplicate", "sink", "top_sink")
HEADS = 5  # in a list
WEIGHT = (0.0, 1.0)
SAID = "mean of each prompt's places, then over prompts, Student's interval"


def section(rows: pl.LazyFrame) -> Section:
    """The best head of each score, lists of the best few, and entropy by layer with its control."""
    found = {score: _heads(rows, score) for score in SCORES}
    known = {score: table for score, table in found.items() if not table.is_empty()}
    return Section(
        headlines=[_headline(score, table) for score, table in known.items()],
        plots=[_entropy(rows)] if known else [],
        listings=[_listing(score, table) for score, table in known.items()],
        remarks=[
            "Chance is what attention of equal weight on every key that the mask lets a query see would "
            "score, at the same places. The best of many heads is above its mean by selection alone: "
            "the intervals are those of each head by itself."
        ],
    )


def _heads(rows: pl.LazyFrame, score: str) -> pl.DataFrame:
    """Every head's score, greatest first, with its chance."""
    table = means(rows, score, ["layer", "head"], WEIGHT)
    defined = rows.filter(pl.col(score).is_not_null())
    chance = means(defined, f"{score}_chance", ["layer", "head"], WEIGHT)
    chance = chance.select("layer", "head", pl.col("value").alias("chance"))
    joined = table.join(chance, on=["layer", "head"], maintain_order="left")
    return joined.sort("value", "layer", "head", descending=[True, False, False])


def _headline(score: str, table: pl.DataFrame) -> Headline:
    best = table.row(0, named=True)
    where = f"layer {best['layer']}, head {best['head']}"
    label = f"highest {score.replace('_', ' ')} ({where}; chance {best['chance']:.3f})"
    note = SAID if best["low"] is not None else "too few prompts for an interval"
    ends = best["value"], best["low"], best["high"]
    return Headline(label, *ends, "attention weight", best["n"], note)


def _listing(score: str, table: pl.DataFrame) -> Listing:
    return Listing(
        f"Heads with the highest {score.replace('_', ' ')} weight",
        f"The {HEADS} heads with the highest mean over prompts of {score.replace('_', ' ')}, its 95% "
        "interval, and what uniform attention scores at the same places.",
        table.head(HEADS).rename({"value": score, "n": "prompts"}),
    )


def _entropy(rows: pl.LazyFrame) -> Plot:
    names = {"entropy": "heads", "entropy_chance": "uniform"}
    parts = [
        means(rows, column, ["layer"]).with_columns(line=pl.lit(name))
        for column, name in names.items()
    ]
    table = pl.concat(parts)
    return Plot(
        "Entropy of attention",
        f"Mean over the heads of a layer, in nat, and that of uniform attention. {prompts_of(table)} "
        f"{POINTWISE}",
        layer_lines(table, "entropy, nat", line="line", names=list(names.values())),
        table,
    )

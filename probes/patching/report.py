"""Patching in a report: the total effect, effects along the layers, heads that stand out."""

from __future__ import annotations

import polars as pl

from probes.patching.reading import SITES
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

SHOWN = 10
REPAIR = (
    "Effects of cells do not add up: later components repair or undo what is put in. Denoising says "
    "what is sufficient, noising what is necessary."
)
MEAN = "mean over prompts, Student's interval"


def section(rows: pl.LazyFrame) -> Section:
    """The section of patching, from the tidy rows of all prompts.

    Where tokens were patched one by one, what is drawn is at the last of them.
    """
    typed = rows.with_columns(
        pl.col("layer", "head", "position").cast(pl.Int64),
        pl.col("effect", "total", "clean", "corrupted").cast(pl.Float64),
    )
    last = typed.filter(
        pl.col("position").is_null()
        | (pl.col("position") == pl.col("position").max().over("prompt"))
    )
    names = ("metric", "direction", "receivers", "mlps", "position")
    present = [name for name in names if name in last.collect_schema()]
    said = last.select(present).head(1).collect().row(0, named=True)
    unit = {"probability": "probability", "logit_difference": "logit"}.get(said["metric"], "nat")
    where = "all tokens together" if said["position"] is None else "the last token"
    return Section(
        headlines=_runs(last, unit),
        plots=_sites(last, unit, where),
        listings=_heads(last, unit, where),
        remarks=[_what(said), REPAIR],
    )


def _what(said: dict[str, str]) -> str:
    base = {
        "denoising": "Clean values were put into the corrupted run (denoising)",
        "noising": "Corrupted values were put into the clean run (noising)",
    }[said["direction"]]
    paths = ""
    if "mlps" in said:
        between = {
            "frozen": "attention and MLPs between were frozen",
            "recomputed": "attention between was frozen, MLPs between were recomputed",
        }
        paths = f", along paths to {said['receivers']} alone: {between[said['mlps']]}"
    return f"{base}{paths}; scored by {said['metric'].replace('_', ' ')}."


def _runs(last: pl.LazyFrame, unit: str) -> list[Headline]:
    each = last.unique("prompt", keep="first").with_columns(every=pl.lit(0))
    labels = {"total": "Total effect", "clean": "Clean run", "corrupted": "Corrupted run"}
    return [
        headline(label, unit, means(each, name, ["every"]), MEAN) for name, label in labels.items()
    ]


def _sites(last: pl.LazyFrame, unit: str, where: str) -> list[Plot]:
    whole = last.filter(pl.col("head").is_null()).with_columns(pl.col("site").replace(SITES))
    table = means(whole, "effect", ["site", "layer"])
    if table.is_empty():
        return []
    names = [name for name in SITES.values() if name in table["site"]]
    caption = f"Mean effect of each site, {where}, in {unit}. {prompts_of(table)} {POINTWISE}"
    drawn = layer_lines(table, f"effect, {unit}", line="site", names=names)
    return [Plot("Effects along the layers", caption, drawn, table)]


def _heads(last: pl.LazyFrame, unit: str, where: str) -> list[Listing]:
    own = last.filter(pl.col("head").is_not_null())
    table = means(own, "effect", ["site", "layer", "head"])
    if table.is_empty():
        return []
    first = table.sort(pl.col("value").abs(), descending=True).head(SHOWN)
    caption = (
        f"The {first.height} heads with the largest mean effect by its absolute value, {where}, in "
        f"{unit}. Intervals are each head's own (Student's, 95%); as these were chosen among "
        f"{table.height} by the same prompts, their means are a little too large."
    )
    return [Listing("Heads that stand out", caption, first.rename({"value": "effect"}))]

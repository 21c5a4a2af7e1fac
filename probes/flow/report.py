"""Layers as a flow in a report: how near to a flow, which way, and what other orders cost."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from probes.flow.orders import LABELS
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
from workbench.report.summaries import means, medians

__all__ = ["section"]

NAMES = {"model": "model", "random": "untrained twin"}
MEDIAN = "median over prompts of each one's mean over tokens and layers"
MEAN = "mean over prompts, Student's interval"
DRAWN = {
    "step": ("Steps", "step, of |x|"),
    "turn": ("Turns", "cosine with the step before"),
    "straightness": ("Straightness", "straightness so far"),
    "ode_defect": ("Distance of a block from its flow", "of the step"),
    "integrated_defect": ("Distance of a block from its integrated flow", "of the step"),
    "bracket": ("Bracket of attention and MLP", "of the step"),
    "swap": ("Attention then MLP less MLP then attention", "of the step"),
}


def section(rows: pl.LazyFrame) -> Section:
    """Headlines, curves of the model beside its twin, and the table of orders.

    Args:
        rows: tidy rows of `LayerFlow`.
    """
    rows = rows.with_columns(who=pl.col("view").replace(NAMES))
    known = set(rows.collect_schema())
    drawn = {name: said for name, said in DRAWN.items() if name in known}
    if "ode_defect" in drawn:
        title, unit = drawn["ode_defect"]
        least = rows.select(pl.col("substeps").min()).collect().item()
        drawn["ode_defect"] = (f"{title}, N = {least}", unit)
    return Section(
        headlines=_headlines(rows, drawn, known),
        plots=[_plot(rows, name, *said) for name, said in drawn.items()],
        listings=_listings(rows, known),
        remarks=[
            "Each block is read as an Euler step of x' = f(x), f = block(x) - x. A step of a smooth flow is "
            "small, goes on in the direction of the one before, and lies near the flow's own end. The "
            "untrained twin is what the architecture does by itself."
        ],
    )


def _one_step(rows: pl.LazyFrame, name: str) -> pl.LazyFrame:
    if name != "ode_defect":
        return rows
    return rows.filter(pl.col("substeps") == pl.col("substeps").min())


def _headlines(
    rows: pl.LazyFrame, drawn: Mapping[str, tuple[str, str]], known: set[str]
) -> list[Headline]:
    found = []
    for name, (title, unit) in drawn.items():
        if name in ("straightness", "swap"):
            continue
        for view, who in NAMES.items():
            own = _one_step(rows, name).filter(pl.col("view") == view).with_columns(every=pl.lit(0))
            table = medians(own, name, ["every"])
            if not table.is_empty():
                found.append(headline(f"{title}, {who}", unit, table, MEDIAN))
    if "loss" in known:
        own = rows.filter(pl.col("view") == "model").with_columns(every=pl.lit(0))
        found.append(headline("Loss", "nat per token", means(own, "loss", ["every"]), MEAN))
    return found


def _plot(rows: pl.LazyFrame, name: str, title: str, label: str) -> Plot:
    table = means(_one_step(rows, name), name, ["who", "layer"])
    names = [who for who in NAMES.values() if who in table["who"]]
    drawn = layer_lines(table, label, line="who", names=names)
    caption = f"Mean over each prompt's tokens, then over prompts, {label}. {prompts_of(table)} {POINTWISE}"
    return Plot(title, caption, drawn, table)


def _listings(rows: pl.LazyFrame, known: set[str]) -> list[Listing]:
    found = []
    if "exponents" in known:
        table = means(rows, "exponents", ["who", "exponent"]).rename({"value": "nat per layer"})
        caption = (
            "Finite-depth exponents by Benettin's method from a random frame, means over prompts with "
            "Student's intervals. Above 0, directions between prompts' states part with depth."
        )
        found.append(Listing("Exponents", caption, table))
    if "loss_change" in known:
        whole = means(rows, "loss_change", ["who", "order"]).with_columns(
            pl.col("order").replace(LABELS)
        )
        caption = (
            "Change of the loss in nat per token with every block's branches in another order, means over "
            "prompts with Student's intervals. Halves are Euler steps. A twin without skill has little "
            "to lose."
        )
        found.append(Listing("Other orders", caption, whole.rename({"value": "change"})))
    if "layer_loss_change" in known:
        both = means(rows, "layer_loss_change", ["who", "order", "layer"]).join(
            means(rows, "random_change", ["who", "order", "layer"]).select(
                "who", "order", "layer", pl.col("value").alias("random push")
            ),
            on=["who", "order", "layer"],
        )
        own = both.filter(pl.col("who") == "model").drop("who")
        caption = (
            "One block alone in another order, beside its output pushed as far in a random direction; means "
            "over prompts, of the model."
        )
        table = own.with_columns(pl.col("order").replace(LABELS)).rename({"value": "change"})
        found.append(Listing("One block in another order", caption, table))
    return found

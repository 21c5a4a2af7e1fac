"""Neurons in a report: the figure with all of them, what each writes, and where it is most active."""

from __future__ import annotations

import polars as pl
import xarray as xr

from lenses.neurons.figures import figure
from workbench.figures import visible
from workbench.report.sections import Listing, Plot, Section

__all__ = ["section"]

TOKENS = 5  # of each end, in the table
NUMBERS = ("unit", "tokens", "low", "high", "mean", "positive", "written")


def section(rows: pl.LazyFrame, data: xr.Dataset | None) -> Section:
    """Page, table and contexts; `data` is the finished dataset."""
    table = rows.collect()
    summaries = table.filter(pl.col("kind") == "summary")
    if data is None or summaries.is_empty():
        return Section(remarks=["No activation was read, so nothing is said of a neuron."])
    said = (
        "Value vector in the vocabulary (most promoted and most suppressed tokens), histogram of all "
        "activations, and the contexts of the greatest ones, one a prompt, coloured by the activation at "
        "each token. The list chooses the neuron."
    )
    return Section(
        plots=[Plot("Neurons", said, figure(data), table.drop("window"))],
        listings=[_summary(table, summaries), _contexts(table)],
        remarks=[
            "Top contexts show a neuron at its most active, which may be unlike what it does for the most "
            "part: the histogram says how rare they are."
        ],
    )


def _summary(table: pl.DataFrame, summaries: pl.DataFrame) -> Listing:
    values = table.filter(pl.col("kind") == "value", pl.col("k") <= TOKENS)
    found = summaries.select(*NUMBERS)
    for end in ("promoted", "suppressed"):
        tokens = (
            values.filter(pl.col("end") == end)
            .with_columns(pl.col("token").map_elements(visible, return_dtype=pl.String))
            .group_by("unit", maintain_order=True)
            .agg(pl.col("token").str.join(" ").alias(f"{end} tokens"))
        )
        found = found.join(tokens, on="unit", how="left", maintain_order="left")
    return Listing(
        "What the neurons write",
        f"Layer {summaries['layer'][0]}. Activations over all tokens read: least, greatest, mean, share "
        "above 0; written: the mean of the activation's size times the value vector's length; and the "
        f"{TOKENS} tokens that the value vector promotes and suppresses most.",
        found,
    )


def _contexts(table: pl.DataFrame) -> Listing:
    best = table.filter(pl.col("kind") == "context", pl.col("k") == 1)
    context = pl.col("window").list.eval(pl.element().struct.field("token")).list.join("")
    return Listing(
        "Where they are most active",
        "The token and the context of each neuron's greatest activation.",
        best.select(
            "unit",
            "activation",
            "position",
            pl.col("token").map_elements(visible, return_dtype=pl.String),
            context=context,
        ),
    )

"""Superposition statistics in a report: quantiles along the layers."""

from __future__ import annotations

import polars as pl
import xarray as xr

from probes.superposition.instrument import Superposition
from workbench.report.sections import Listing, Plot, Section

__all__ = ["section"]


def section(rows: pl.LazyFrame, data: xr.Dataset | None) -> Section:
    """Figure and table; `data` is the finished dataset."""
    table = rows.collect()
    if data is None or table.is_empty():
        return Section(remarks=["The weights were not read."])
    said = (
        f"The norm of each neuron's input weights times its bias, {table['neurons'][0]} neurons a layer: "
        "median, 20% and 80% quantiles, beside the median with the biases dealt out anew among a layer's "
        "neurons; and the share of neurons by the product."
    )
    return Section(
        plots=[Plot("‖W_in‖ b_in", said, Superposition.figure(data), table)],
        listings=[Listing("By layer", "weight_norm and bias are medians.", table)],
        remarks=[
            "Large weights with negative biases are what neurons in superposition need; they are a sign, "
            "no proof. The prompts do not matter here."
        ],
    )

"""Sparse probes in a report: each feature's best layer for each k, and F1 along the layers."""

from __future__ import annotations

import polars as pl
import xarray as xr

from probes.sparse.family import family
from probes.sparse.figures import figure
from workbench.report.sections import Listing, Plot, Section

__all__ = ["section"]

BEST = ("layer", "f1", "f1_low", "f1_high", "p", "selectivity", "compression", "units")
BESIDE = ("direction_f1", "dense_f1", "all_positive", "examples", "positives")


def section(rows: pl.LazyFrame, data: xr.Dataset | None) -> Section:
    """Figure and table; `data` is the finished dataset."""
    table = rows.collect()
    if data is None or table.is_empty():
        return Section(remarks=["No example was read, so nothing is said of a feature."])
    shown = table.with_columns(
        pl.col(name).cast(pl.List(pl.String)).list.join(", ") for name in ("units", "weights")
    )
    said = (
        "F1 on test groups, which neither fit nor threshold have seen, of the smallest and the largest "
        "number of units. The text under the pointer has the 95% bootstrap interval over test groups."
    )
    return Section(
        plots=[Plot("Held-out F1", said, figure(data), shown)],
        listings=[_best(shown, family(data))],
        remarks=[
            "A probe says that a feature can be read off some units, not that the model uses them there: "
            "that takes an intervention."
        ],
    )


def _best(table: pl.DataFrame, tested: str) -> Listing:
    best = (
        table.sort("validation_f1", descending=True, nulls_last=True)
        .group_by("feature", "site", "k", maintain_order=True)
        .first()
        .sort("feature", "site", "k")
        .select("feature", "site", "k", *BEST, *BESIDE)
    )
    if best["site"].n_unique() == 1:
        best = best.drop("site")
    if best["dense_f1"].is_null().all():  # not asked for
        best = best.drop("dense_f1")
    p = f"p is adjusted over {tested}. " if tested else ""
    return Listing(
        "Best layers",
        "The layer of highest F1 on validation groups, and its F1 on test groups with a 95% interval. "
        f"{p}Selectivity is F1 less that of a control task, random labels of token types. Compression is of "
        "the labels, 1 for none. direction_f1: of the difference of the class means, over all units; "
        "dense_f1: of a probe of the whole site, where asked for, of an SAE's latents the states that it "
        "reads; all_positive: of calling everything positive.",
        best,
    )

"""Interchanges in a report: the best layer held against each control, the figure and the numbers."""

from __future__ import annotations

import polars as pl
import xarray as xr

from probes.interchange.figures import NAMES, described, figure
from workbench.report.sections import Headline, Listing, Plot, Section

__all__ = ["section"]

INTERVAL = "95% bootstrap interval over held-out groups"
COLUMNS = ("layer", "control", "k", "accuracy", "low", "high", "top", "score", "train_accuracy")
SAID = (
    "A base prompt runs with part of one state taken from a source prompt, and should then give the "
    "source's answer. That alone is weak evidence: fitted subspaces succeed at arbitrary tasks and in "
    "models that were never trained, and may "
    "work through directions that the model does not use. So the accuracy is to be read beside a random "
    "subspace whose change is as long, the same procedure towards arbitrary answers, and the same on random "
    "weights, where about half of all pairs come out right by chance, with no change too."
)


def section(rows: pl.LazyFrame, data: xr.Dataset | None) -> Section:
    """Headlines of the layer of greatest accuracy, the figure, and all rows."""
    table = rows.collect()
    if data is None or table.is_empty():
        return Section(remarks=["No pair was measured."])
    names = pl.col("control").replace(NAMES)
    caption = f"Interchange {described(data)} (bootstrap; the band is pointwise)."
    return Section(
        headlines=_headlines(table),
        plots=[Plot("Interchange accuracy by layer", caption, figure(data), table)],
        listings=[
            Listing(
                "All numbers",
                f"accuracy: the source's answer beats the base's, with its {INTERVAL}; top: it beats every "
                "answer of its kind; train_accuracy: on the pairs that the subspace came from.",
                table.select(COLUMNS).with_columns(names),
            )
        ],
        remarks=[SAID],
    )


def _headlines(table: pl.DataFrame) -> list[Headline]:
    """The subspace at its best layer, and its lead over each control there."""
    own = table.filter(pl.col("control") == "subspace").sort("accuracy", "layer")
    best = own.row(-1, named=True)
    note = f"{INTERVAL}; this layer was chosen on the same pairs"
    found = [_headline(f"accuracy at layer {best['layer']}", best, "", note)]
    there = table.filter(pl.col("layer") == best["layer"])
    for control in ("random", "arbitrary", "twin"):
        for row in there.filter(pl.col("control") == control).iter_rows(named=True):
            label = f"lead over {NAMES[control]}, layer {best['layer']}"
            found.append(_headline(label, row, "lead", f"{note}; paired"))
    return found


def _headline(label: str, row: dict[str, float], number: str, note: str) -> Headline:
    ends = (f"{number}_low", f"{number}_high") if number else ("low", "high")
    low, high = (row[end] for end in ends)
    return Headline(label, row[number or "accuracy"], low, high, "share", int(row["n"]), note)

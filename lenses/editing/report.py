"""The edit table in a report: how often edits hold, carry over and stay where they belong."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from lenses.editing.figures import NAMES
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
from workbench.report.summaries import shares

__all__ = ["section"]

KINDS = {
    "prompt": ("edited prompt", "success", "The target ranks first on the edited prompt"),
    "paraphrase": ("paraphrases", "success", "The target ranks first on its paraphrases"),
    "neighbour": ("neighbours kept", "kept", "Neighbours keep their top token"),
}
BY = ("layer", "eta", "method")
WILSON = "Wilson's interval for one trial a prompt"
METHODS_SAID = (
    "Three changes of the MLP's last map, of one Frobenius norm, are made and undone at each layer: "
    "imprint and shift; one step of gradient descent on the target's negative log-likelihood; and a "
    "control, the imprint with a random direction in place of the target's, which shows what any "
    "change of that size does. An edit that holds on its prompt and carries over to paraphrases is worth "
    "little where neighbours do not stay as they were."
)


def section(rows: pl.LazyFrame) -> Section:
    """The edit table, a plot for each kind of text and eta, and what no edit had done before."""
    names = pl.col("method").replace(NAMES)
    found = {
        kind: shares(part.with_columns(names), what, BY)
        for kind, (_, what, _), part in _parts(rows)
    }
    return Section(
        headlines=list(_headlines(rows)),
        plots=[plot for kind, table in found.items() for plot in _plots(kind, table)],
        listings=[_table(found)],
        remarks=[METHODS_SAID],
    )


def _parts(rows: pl.LazyFrame) -> Iterator[tuple[str, tuple[str, str, str], pl.LazyFrame]]:
    """The rows of each kind that there is."""
    there = set(rows.select(pl.col("kind").unique()).collect()["kind"])
    for kind, said in KINDS.items():
        if kind in there:
            yield kind, said, rows.filter(pl.col("kind") == kind)


def _headlines(rows: pl.LazyFrame) -> Iterator[Headline]:
    """Over all layers and etas together, since none of them is chosen here."""
    for _, (_, what, title), part in _parts(rows):
        for method, name in (
            ("imprint_shift", "imprint and shift"),
            ("random", "random direction"),
        ):
            summary = shares(part.filter(pl.col("method") == method), what, ["method"])
            note = f"all layers and etas together; {WILSON}"
            yield headline(f"{title}: {name}", "share", summary, note)


def _plots(kind: str, table: pl.DataFrame) -> Iterator[Plot]:
    label, _, title = KINDS[kind]
    for eta in table["eta"].unique().sort():
        shown = table.filter(pl.col("eta") == eta)
        yield Plot(
            f"{title} (eta {float(eta):g})",
            f"Share after an edit at each layer, by method ({WILSON}). {prompts_of(shown)} {POINTWISE}",
            layer_lines(
                shown,
                f"share: {label}",
                line="method",
                names=list(NAMES.values()),
                range=[-0.03, 1.03],
            ),
            shown,
        )


def _table(found: dict[str, pl.DataFrame]) -> Listing:
    columns = [
        table.select(
            *BY,
            pl.struct("value", "low", "high").map_elements(_cell, pl.String).alias(KINDS[kind][0]),
        )
        for kind, table in found.items()
    ]
    joined = columns[0]
    for column in columns[1:]:
        joined = joined.join(column, on=BY, how="left", maintain_order="left")
    n = int(found["prompt"]["n"].to_numpy().max())
    return Listing(
        "The edit table",
        f"Shares after an edit, with 95% intervals ({WILSON}), n = {n} prompts: the target ranks first on "
        "the prompt and on its paraphrases; the top token of neighbours is what it was.",
        joined,
    )


def _cell(share: dict[str, float | None]) -> str:
    value, low, high = share["value"], share["low"], share["high"]
    assert value is not None
    if low is None or high is None:
        return f"{100 * value:.0f}%"
    return f"{100 * value:.0f}% ({100 * low:.0f} to {100 * high:.0f})"

"""Token geometry in a report: how alike the directions of a prompt's tokens are, layer by layer."""

from __future__ import annotations

import polars as pl

from workbench.report.charts import layer_lines
from workbench.report.sections import POINTWISE, Headline, Plot, Section, headline, prompts_of
from workbench.report.summaries import means

__all__ = ["section"]

COSINE, SHARE = (-1.0, 1.0), (0.0, 1.0)
LINES = {"mean_cosine": "this model", "mean_cosine_twin": "untrained twin"}


def section(rows: pl.LazyFrame) -> Section:
    """Mean cosine at the last layer beside the twin's; both, and what the sphere shows, by layer."""
    parts = [
        means(rows, column, ["layer"], COSINE).with_columns(line=pl.lit(name))
        for column, name in LINES.items()
    ]
    table = pl.concat(parts)
    if table.is_empty():
        return Section(remarks=["No prompt has two tokens, and one token has no angle."])
    captured = means(rows, "captured", ["layer"], SHARE)
    return Section(
        headlines=_headlines(rows),
        plots=[
            Plot(
                "Mean cosine of a prompt's tokens",
                f"Over pairs of different tokens, raw states. {prompts_of(table)} {POINTWISE}",
                layer_lines(table, "mean cosine", line="line", names=list(LINES.values())),
                table,
            ),
            Plot(
                "Share of the directions that three dimensions hold",
                "Mean squared length in each prompt's own three directions, the same at all its "
                f"layers. {prompts_of(captured)} {POINTWISE}",
                layer_lines(captured, "share", range=[0, 1]),
                captured,
            ),
        ],
        remarks=[
            "Cosines of raw states have a part that all texts share: hold them against the twin, and "
            "against other prompts, before reading them as agreement of a prompt's tokens."
        ],
    )


def _headlines(rows: pl.LazyFrame) -> list[Headline]:
    last = rows.filter(pl.col("layer") == pl.col("layer").max()).with_columns(every=pl.lit(0))
    found = []
    for column, name in LINES.items():
        table = means(last, column, ["every"], COSINE)
        if not table.is_empty():
            label = f"mean cosine after the last block, {name}"
            found.append(headline(label, "", table, "over prompts, Student's interval"))
    return found

"""Token geometry in a report: how alike the directions of a prompt's tokens are, layer by layer."""

from __future__ import annotations

import polars as pl

from workbench.report.charts import layer_lines
from workbench.report.sections import POINTWISE, Headline, Plot, Section, headline, prompts_of
from workbench.report.summaries import means

__all__ = ["section"]

COSINE, SHARE = (-1.0, 1.0), (0.0, 1.0)
VIEWS = ("raw", "centred")
COLUMNS = {"mean_cosine": "", "mean_cosine_twin": "twin, "}


def section(rows: pl.LazyFrame) -> Section:
    """Mean cosine at the last layer beside the twin's; both, and what the sphere shows, by layer."""
    table = _by_layer(rows, COLUMNS, COSINE)
    if table.is_empty():
        return Section(remarks=["No prompt has two tokens, and one token has no angle."])
    captured = _by_layer(rows, {"captured": ""}, SHARE)
    return Section(
        headlines=_headlines(rows),
        plots=[
            Plot(
                "Mean cosine of a prompt's tokens",
                f"Over pairs of different tokens. {prompts_of(table)} {POINTWISE}",
                layer_lines(table, "mean cosine", line="line", names=_names(table)),
                table,
            ),
            Plot(
                "Share of the directions that three dimensions hold",
                "Mean squared length in each prompt's own three directions, the same at all its "
                f"layers. {prompts_of(captured)} {POINTWISE}",
                layer_lines(captured, "share", line="line", names=_names(captured), range=[0, 1]),
                captured,
            ),
        ],
        remarks=[
            "Cosines of raw states have a part that all texts share; centred states are less each "
            "layer's mean over a held-out corpus. Depth alone aligns tokens: hold both against the "
            "untrained twin, which is centred on its own mean."
        ],
    )


def _by_layer(
    rows: pl.LazyFrame, columns: dict[str, str], ends: tuple[float, float]
) -> pl.DataFrame:
    parts = [
        means(rows.filter(pl.col("view") == view), column, ["layer"], ends).with_columns(
            line=pl.lit(f"{name}{view}")
        )
        for view in VIEWS
        for column, name in columns.items()
    ]
    return pl.concat(parts)


def _names(table: pl.DataFrame) -> list[str]:
    return table["line"].unique(maintain_order=True).to_list()


def _headlines(rows: pl.LazyFrame) -> list[Headline]:
    last = rows.filter(pl.col("layer") == pl.col("layer").max())
    found = []
    for view in VIEWS:
        for column, name in COLUMNS.items():
            own = last.filter(pl.col("view") == view).with_columns(every=pl.lit(0))
            table = means(own, column, ["every"], COSINE)
            if not table.is_empty():
                label = f"mean cosine after the last block, {name}{view}"
                found.append(headline(label, "", table, "over prompts, Student's interval"))
    return found

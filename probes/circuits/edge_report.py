"""Edge attribution in a report: how faithful circuits are, and which edges stand out."""

from __future__ import annotations

import plotly.graph_objects as go
import polars as pl

from workbench.figures import LIGHT
from workbench.report.sections import Listing, Plot, Section, prompts_of
from workbench.report.summaries import means

__all__ = ["section"]

SHOWN = 20
REMARK = (
    "Scores are a first-order approximation of what patching an edge does. The curve is exact: of all edges "
    "outside a circuit the corrupted run's values are read. Each prompt's circuit was chosen by its own "
    "scores and measured on the same prompt, so the curve does not say how well a circuit carries over."
)


def section(rows: pl.LazyFrame) -> Section:
    """The curve beside random edges, and the edges with the largest mean scores."""
    return Section(plots=[_curve(rows)], listings=[_edges(rows)], remarks=[REMARK])


def _curve(rows: pl.LazyFrame) -> Plot:
    named = rows.filter(pl.col("edges").is_not_null()).with_columns(
        pl.col("faithfulness").cast(pl.Float64),
        circuit=pl.when(pl.col("control").is_null())
        .then(pl.lit("largest |score|"))
        .otherwise(pl.lit("random edges")),
    )
    table = means(named, "faithfulness", ["circuit", "edges"])
    traces = [
        go.Scatter(
            x=[max(0.5, size) for size in part["edges"]],
            y=part["value"].to_list(),
            error_y=_ends(part),
            name=name,
            mode="lines+markers",
            line={"color": colour, "dash": dash},
        )
        for name, colour, dash in (
            ("largest |score|", LIGHT.series[0], "solid"),
            ("random edges", LIGHT.muted, "dot"),
        )
        for part in [table.filter(pl.col("circuit") == name)]
    ]
    x_axis = LIGHT.axis("edges kept (0 at the left end)", type="log")
    y_axis = LIGHT.axis("share of the whole effect kept", showgrid=True)
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    layout = LIGHT.layout(xaxis=x_axis, yaxis=y_axis, height=340, legend=legend)
    caption = (
        "Mean over prompts of (metric − corrupted) / (clean − corrupted) when k edges are kept, Student's "
        f"95% interval; random circuits: the mean of each prompt's draws. {prompts_of(table)}"
    )
    return Plot("Faithfulness of circuits", caption, go.Figure(traces, layout), table)


def _ends(part: pl.DataFrame) -> dict[str, object]:
    """Error bars; none where there are too few prompts."""
    if part["low"].null_count():
        return {"visible": False}
    up, down = part["high"] - part["value"], part["value"] - part["low"]
    return {"array": up.to_list(), "arrayminus": down.to_list(), "thickness": 1}


def _edges(rows: pl.LazyFrame) -> Listing:
    edges = rows.filter(pl.col("sender").is_not_null()).with_columns(
        pl.col("score").cast(pl.Float64)
    )
    table = means(edges, "score", ["sender", "receiver"])
    first = table.sort(pl.col("value").abs(), descending=True).head(SHOWN)
    caption = (
        f"The {first.height} edges with the largest mean score by its absolute value, in the metric's unit. "
        f"Intervals are each edge's own (Student's, 95%); as these were chosen among {table.height:,} edges "
        "by the same prompts, their means are a little too large."
    )
    return Listing("Edges that stand out", caption, first.rename({"value": "score"}))

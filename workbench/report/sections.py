"""What an instrument says in a report: headline figures, plots, and prompts that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from workbench.report.charts import layer_lines
from workbench.report.intervals import ANY
from workbench.report.summaries import means

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from workbench.instrument import Instrument

__all__ = [
    "POINTWISE",
    "Headline",
    "Listing",
    "Plot",
    "Section",
    "generic_section",
    "headline",
    "prompts_of",
]

WHERE = ("prompt", "layer", "position", "token", "head", "unit", "query", "key", "source", "k")
WHAT = ("site", "component", "map", "view", "method", "feature")
LINES = ("site", "view", "map", "method", "component")
MOST_LINES = 4
MOST_PLOTS = 6
MOST_HEADLINES = 3
EXTREMES = 5
ROWS = 20
NO_INTERVAL = "too few prompts for an interval"
POINTWISE = "The band is a 95% interval over prompts at each layer by itself (pointwise)."
OVER_ROWS = "mean of each prompt's rows, then over prompts, Student's interval"


@dataclass(frozen=True)
class Headline:
    """One number over the prompts.

    Attributes:
        label: what it is.
        value: the number; low and high are the ends of its 95% interval, None where it has none.
        unit: its unit; "share" is written in per cent.
        n: prompts.
        note: what the interval is, or why there is none.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    unit: str
    n: int
    note: str


@dataclass(frozen=True)
class Plot:
    """A figure, and the numbers that it draws.

    Attributes:
        caption: what is drawn, its unit, n, and what the band is.
    """

    title: str
    caption: str
    figure: go.Figure
    table: pl.DataFrame


@dataclass(frozen=True)
class Listing:
    """A table for a person; where it has a column `prompt`, the report adds the prompts' texts."""

    title: str
    caption: str
    table: pl.DataFrame


@dataclass(frozen=True)
class Section:
    """An instrument's part of a report; `remarks` are paragraphs before the plots."""

    headlines: Sequence[Headline] = ()
    plots: Sequence[Plot] = ()
    listings: Sequence[Listing] = ()
    remarks: Sequence[str] = ()


def headline(label: str, unit: str, summary: pl.DataFrame, note: str) -> Headline:
    """The headline of a summary of one row (see `workbench.report.summaries`)."""
    value, low, high, n = summary.select("value", "low", "high", "n").row(0)
    return Headline(
        label,
        value,
        low,
        high,
        unit,
        n,
        note if low is not None else "too few prompts for an interval",
    )


def prompts_of(table: pl.DataFrame) -> str:
    """How many prompts are behind the points of a plot, as its caption says it."""
    least, most = table["n"].to_numpy().min(), table["n"].to_numpy().max()
    few = f"{least} to {most}" if least < most else f"{most}"
    return f"n = {few} prompts."


def generic_section(kind: type[Instrument], rows: pl.LazyFrame, data: xr.Dataset | None) -> Section:
    """A section for any instrument: its numbers along the layers, or its own figure.

    Args:
        kind: the instrument.
        rows: its tidy rows.
        data: the finished dataset of a set-level instrument.
    """
    if data is not None:
        return _set_level(kind, rows, data)
    numbers = _numbers(rows)
    if not numbers or "prompt" not in rows.collect_schema():
        return Section(remarks=["The rows of this instrument have no numbers by prompt to draw."])
    return Section(
        headlines=[_headline(kind, rows, number) for number in numbers[:MOST_HEADLINES]],
        plots=_plots(kind, rows, numbers) if "layer" in rows.collect_schema() else [],
        listings=[_extremes(rows, numbers[0])],
    )


def _set_level(kind: type[Instrument], rows: pl.LazyFrame, data: xr.Dataset) -> Section:
    table = rows.collect()
    first = table.head(ROWS)
    caption = f"The first {first.height} of {table.height} rows."
    listing = Listing("First rows", caption, first)
    plot = Plot(kind.title, "One result over all prompts.", kind.figure(data), table)
    return Section(plots=[plot], listings=[listing])


def _numbers(rows: pl.LazyFrame) -> list[str]:
    """Columns of numbers that are no axis and not empty."""
    schema = rows.collect_schema()
    names = [n for n, kind in schema.items() if kind.is_numeric() and n not in WHERE + WHAT]
    if not names:
        return []
    filled = rows.select(pl.col(names).count()).collect(engine="streaming").row(0, named=True)
    return [name for name in names if filled[name]]


def _lines(rows: pl.LazyFrame) -> tuple[str | None, list[str]]:
    """The column whose few values are drawn as lines, and these values."""
    for column in LINES:
        if column in rows.collect_schema():
            names = rows.select(pl.col(column).unique().drop_nulls().sort()).collect()[column]
            if 2 <= len(names) <= MOST_LINES:
                return column, names.to_list()
    return None, []


def _headline(kind: type[Instrument], rows: pl.LazyFrame, number: str) -> Headline:
    label, constant = number.replace("_", " "), rows.with_columns(every=pl.lit(0))
    summary = means(constant, number, ["every"], kind.ranges.get(number, ANY))
    return headline(label, "", summary, OVER_ROWS)


def _plots(kind: type[Instrument], rows: pl.LazyFrame, numbers: Sequence[str]) -> list[Plot]:
    line, names = _lines(rows)
    by = ["layer"] if line is None else [line, "layer"]
    left = len(numbers) - MOST_PLOTS
    more = f" {left} more columns stand in the rows." if left > 0 else ""
    plots = []
    for number in numbers[:MOST_PLOTS]:
        table = means(rows, number, by, kind.ranges.get(number, ANY))
        said = f"Mean of {number} within each prompt, then over prompts (Student's interval)."
        figure = layer_lines(table, number, line=line, names=names)
        plots.append(Plot(number, f"{said} {prompts_of(table)} {POINTWISE}{more}", figure, table))
    return plots


def _extremes(rows: pl.LazyFrame, number: str) -> Listing:
    each = rows.group_by("prompt").agg(pl.col(number).mean()).drop_nulls().sort(number, "prompt")
    both = pl.concat([each.tail(EXTREMES).reverse(), each.head(EXTREMES)])
    found = both.collect().unique("prompt", keep="first", maintain_order=True)
    return Listing(
        f"Highest and lowest {number}",
        f"The {EXTREMES} prompts with the highest and the {EXTREMES} with the lowest mean of {number} "
        "over all their rows.",
        found,
    )

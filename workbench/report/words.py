"""Numbers and tables as the report's page writes them."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import plotly.graph_objects as go
import polars as pl
from markupsafe import Markup

from workbench.figures import shorten, visible
from workbench.report.sections import Headline

__all__ = ["FILTERS", "amount", "cell", "duration", "figure_json", "interval", "moment", "number"]

NONE = "–"
TURNING = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # would turn the text around
LONGEST = 200  # columns of a text in a table; the whole of it is in the Parquet files


def number(value: float) -> str:
    """Four figures, and as many as it takes for whole numbers.

    >>> number(0.123456), number(123456.0), number(1e-9)
    ('0.1235', '123,456', '1e-09')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def amount(headline: Headline, value: float | None) -> str:
    """A value of a headline; a share in per cent."""
    if value is None:
        return NONE
    return f"{100 * value:.1f}%" if headline.unit == "share" else number(value)


def interval(headline: Headline) -> str:
    """The ends of a headline's interval."""
    if headline.low is None:
        return NONE
    return f"{amount(headline, headline.low)} to {amount(headline, headline.high)}"


def cell(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    if isinstance(value, dict):
        return " ".join(map(cell, value.values()))
    return shorten(TURNING.sub(lambda found: visible(found[0]), str(value)), LONGEST)


def kind(value: Any, column: str) -> str:
    """How a cell is written: "number", "token" (never broken), "prompt" or "text"."""
    if isinstance(value, int | float) and column != "prompt":
        return "number"
    return "token" if "token" in column else "prompt" if column == "prompt" else "text"


def moment(iso: str) -> str:
    """A time in UTC.

    >>> moment("2026-01-31T09:05:00+00:00")
    '2026-01-31 09:05 UTC'
    """
    return f"{iso[:16].replace('T', ' ')} UTC"


def duration(seconds: float) -> str:
    """A time as a person says it.

    >>> duration(3.21), duration(200), duration(7385)
    ('3.2 s', '3 min 20 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


def csv_address(table: pl.DataFrame) -> str:
    """The table as a data: address of a CSV file."""
    return f"data:text/csv;charset=utf-8,{quote(table.write_csv())}"


def figure_json(figure: go.Figure) -> Markup:
    """The figure as JSON that stands safely in a page: none of its texts can end the script."""
    plain = json.loads(figure.to_json())
    text = json.dumps({"data": plain["data"], "layout": plain["layout"]})
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # nothing is left in it that HTML reads


FILTERS = {
    "amount": amount,
    "cell": cell,
    "csv_address": csv_address,
    "duration": duration,
    "figure_json": figure_json,
    "interval": interval,
    "kind": kind,
}

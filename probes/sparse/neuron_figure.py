"""A feature's first units at one layer: how both classes are spread over each one's activation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.errors import ResultError
from workbench.figures import Theme, markup, shorten, themed
from workbench.figures.reading import chosen

__all__ = ["figure_of_neurons"]

WIDTH, ROW = 1120, 180
TOP, BOTTOM = 84, 48
ACROSS = 4
GAP = 0.05  # of the width
LETTERS = 40
HEAD, FOOT = 0.14, 0.22  # of a row: above and below a plot that is not in the last one
SHARES = (-3.0, 0.05)  # decades of the vertical axis
CLASSES = ("without", "with")


def figure_of_neurons(
    data: xr.Dataset, feature: str, layer: int, tested: str, *, theme: str = "light"
) -> go.Figure:
    """Histograms of the units that probes take first, each class by its share of its own examples.

    p values are adjusted over `tested`, in words (see `family`).

    Raises:
        ResultError: the result has no such feature or layer, or no units there.
    """
    look = themed(theme)
    one = data.sel(
        feature=chosen("feature", feature, data["feature"].values),
        layer=chosen("layer", layer, data["layer"].values),
    )
    there = one.isel(rank=np.flatnonzero(one["neuron"].values >= 0))
    if not there.sizes["rank"]:
        of = f" of {one['site'].item()}" if "site" in one.coords else ""
        raise ResultError(f"no units{of} at layer {layer} in this result")
    traces = [bars for rank in range(there.sizes["rank"]) for bars in _unit(there, rank, look)]
    return go.Figure(traces, _layout(there, feature, layer, tested, look))


def _unit(one: xr.Dataset, rank: int, theme: Theme) -> Iterator[go.Bar]:
    unit = one.isel(rank=rank)
    counts = unit["histogram"].values
    low, high = float(unit["neuron_low"]), float(unit["neuron_high"])
    width = (high - low) / counts.shape[1] or 1.0
    middles = low + width * (np.arange(counts.shape[1]) + 0.5)
    axis = str(rank + 1) if rank else ""
    for label, name in enumerate(CLASSES):
        own = counts[label]
        yield go.Bar(
            x=middles,
            y=own / max(own.sum(), 1),
            width=width,
            name=f"{name} the feature",
            legendgroup=name,
            showlegend=rank == 0,
            marker={"color": theme.series[1 - label], "opacity": 0.6, "line": {"width": 0}},
            customdata=own,
            hovertemplate=(
                f"{name}: %{{customdata}} examples<br>activation about %{{x:.3g}}<extra></extra>"
            ),
            xaxis=f"x{axis}",
            yaxis=f"y{axis}",
        )


def _layout(one: xr.Dataset, feature: str, layer: int, tested: str, theme: Theme) -> dict[str, Any]:
    count = one.sizes["rank"]
    rows = -(-count // ACROSS)
    p = f"; p adjusted over {tested}" if tested else ""
    title = (
        f"{markup(shorten(feature, LETTERS))}, layer {layer}: the units that probes take first<br>"
        "<span style='font-size:11px'>Share of each class, all examples, log scale. F1 of a threshold on "
        f"the unit alone, held out{p}.</span>"
    )
    found: dict[str, Any] = theme.layout(
        width=WIDTH,
        height=TOP + rows * ROW + BOTTOM,
        barmode="overlay",
        margin={"l": 52, "r": 16, "t": TOP, "b": BOTTOM},
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 13}},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"}
        | {"font": {"size": 11}},
        annotations=[_name(one, rank, rows, theme) for rank in range(count)],
    )
    for rank in range(count):
        found |= _axes(rank, rows, count, theme)
    return found


def _axes(rank: int, rows: int, count: int, theme: Theme) -> dict[str, Any]:
    across, down = _place(rank, rows)
    axis = str(rank + 1) if rank else ""
    below = "activation" if rank + ACROSS >= count else ""
    beside = "share of class" if rank % ACROSS == 0 else ""
    share: dict[str, Any] = {"type": "log", "range": SHARES, "dtick": 1, "tickformat": "~g"}
    return {
        f"xaxis{axis}": theme.axis(below, domain=across, anchor=f"y{axis}", nticks=5),
        f"yaxis{axis}": theme.axis(beside, domain=down, anchor=f"x{axis}", **share),
    }


def _place(rank: int, rows: int) -> tuple[list[float], list[float]]:
    """Ends of a unit's plot across and upward, of the figure's."""
    row, column = divmod(rank, ACROSS)
    width = (1 - GAP * (ACROSS - 1)) / ACROSS
    start = column * (width + GAP)
    bottom = (rows - 1 - row) / rows
    foot = FOOT if row < rows - 1 else 0
    return [start, start + width], [bottom + foot / rows, bottom + (1 - HEAD) / rows]


def _name(one: xr.Dataset, rank: int, rows: int, theme: Theme) -> dict[str, Any]:
    unit = one.isel(rank=rank)
    across, down = _place(rank, rows)
    p = float(unit["neuron_p"])
    sure = "" if np.isnan(p) else f", p {p:.3f}"
    return {
        "text": f"<b>{int(unit['neuron'])}</b>  F1 {float(unit['neuron_f1']):.2f}{sure}",
        "x": across[0],
        "y": down[1],
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"color": theme.ink, "size": 11},
    }

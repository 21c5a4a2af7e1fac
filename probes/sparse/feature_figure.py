"""One feature: F1 against k, a line a layer, and F1 of the smallest probe along the layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.colors import hex_to_rgb, n_colors

from workbench.figures import Theme, markup, shorten, themed
from workbench.figures.reading import chosen

__all__ = ["figure_of_feature"]

WIDTH, HEIGHT = 1120, 340
MARGIN = {"l": 52, "r": 16, "t": 66, "b": 48}
LEFT, RIGHT = (0.0, 0.34), (0.48, 0.8)
LEGEND = 0.01  # of the width, from a plot to its legend
LETTERS = 40
LIKELY = 0.05
DASHES = {"control task": "dot", "all positive": "dash", "random": "dashdot"}


def figure_of_feature(
    data: xr.Dataset, feature: str, tested: str, *, theme: str = "light"
) -> go.Figure:
    """Held-out F1; on the right of the smallest k, with what it is to be held against.

    Filled marks have p <= .05 of the probe's best unit, adjusted over `tested`, in words (see `family`).
    The grey band is the middle 95% of F1 where test groups exchange their labels.

    Raises:
        ResultError: the result has no such feature.
    """
    look = themed(theme)
    one = data.sel(feature=chosen("feature", feature, data["feature"].values))
    traces = [*_against_k(one, look), *_along_layers(one, look)]
    return go.Figure(traces, _layout(one, feature, tested, look))


def _against_k(one: xr.Dataset, theme: Theme) -> Iterator[go.Scatter]:
    """A line a layer, coloured from the first to the last; thick where validation prefers the layer."""
    best = int(np.nanargmax(one["validation_f1"].isel(k=0).values))
    for number, (layer, colour) in enumerate(
        zip(one["layer"].values.tolist(), _colours(one.sizes["layer"], theme), strict=True)
    ):
        of_layer = one.sel(layer=layer)
        ends = np.stack([of_layer["f1_low"], of_layer["f1_high"], of_layer["p"]], -1)
        yield go.Scatter(
            x=[str(k) for k in one["k"].values.tolist()],
            y=of_layer["f1"].values,
            name=f"layer {layer}",
            legend="legend",
            mode="lines+markers",
            line={"color": colour, "width": 3.5 if number == best else 1.3},
            marker={"size": 6},
            customdata=ends,
            hovertemplate=(
                f"layer {layer}, k %{{x}}<br>F1 %{{y:.3f}} (%{{customdata[0]:.3f}} to "
                "%{customdata[1]:.3f})<br>p %{customdata[2]:.3f}<extra></extra>"
            ),
        )


def _colours(count: int, theme: Theme) -> list[str]:
    first, last = (f"rgb{hex_to_rgb(one)}" for one in theme.series[:2])
    if count == 1:
        return [first]
    found: list[str] = n_colors(first, last, count, colortype="rgb")
    return found


def _along_layers(one: xr.Dataset, theme: Theme) -> Iterator[go.Scatter]:
    small = one.isel(k=0)
    layers = one["layer"].values
    shared: dict[str, Any] = {"xaxis": "x2", "yaxis": "y2", "legend": "legend2"}
    if small["chance_high"].notnull().all():
        yield _band(layers, small["chance_low"].values, small["chance_high"].values, theme, shared)
    lines = {
        "control task": small["control_f1"].values,
        "all positive": np.full(len(layers), float(one["all_positive"])),
        "random": np.full(len(layers), float(one["random"])),
    }
    for name, values in lines.items():
        if not np.isnan(values).all():
            pen = {"color": theme.muted, "dash": DASHES[name], "width": 1.5}
            yield go.Scatter(x=layers, y=values, name=name, mode="lines", line=pen, **shared)
    others = {"direction_f1": "mean-difference direction", "dense_f1": "all units (dense)"}
    for number, (variable, name) in enumerate(others.items()):
        if variable in one:
            pen = {"color": theme.series[2 + number], "width": 1.5}
            values = one[variable].values
            yield go.Scatter(x=layers, y=values, name=name, mode="lines", line=pen, **shared)
    yield _smallest(small, theme, shared)


def _band(layers: Any, low: Any, high: Any, theme: Theme, shared: dict[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=[*layers, *layers[::-1]],
        y=[*high, *low[::-1]],
        name="test labels exchanged (95%)",
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=theme.rule,
        hoverinfo="skip",
        **shared,
    )


def _smallest(small: xr.Dataset, theme: Theme, shared: dict[str, Any]) -> go.Scatter:
    f1, k = small["f1"].values, int(small["k"])
    colour = theme.series[0]
    likely = small["p"].values <= LIKELY
    return go.Scatter(
        x=small["layer"].values,
        y=f1,
        name=f"k = {k} (95%)",
        mode="lines+markers",
        line={"color": colour, "width": 2.5},
        marker={
            "size": 9,
            "color": [colour if sure else theme.paper for sure in likely.tolist()],
            "line": {"color": colour, "width": 2},
        },
        error_y={
            "type": "data",
            "array": np.maximum(small["f1_high"].values - f1, 0),
            "arrayminus": np.maximum(f1 - small["f1_low"].values, 0),
            "color": colour,
            "thickness": 1.2,
            "width": 3,
        },
        customdata=np.stack([small["p"].values, small["units"].values[:, 0]], -1),
        hovertemplate=(
            "layer %{x}, unit %{customdata[1]}<br>F1 %{y:.3f}<br>p %{customdata[0]:.3f}"
            "<extra></extra>"
        ),
        **shared,
    )


def _layout(one: xr.Dataset, feature: str, tested: str, theme: Theme) -> dict[str, Any]:
    ends: dict[str, Any] = {"range": [-0.02, 1.04], "showgrid": True}
    legend: dict[str, Any] = {
        "y": 1,
        "yanchor": "top",
        "xanchor": "left",
        "font": {"size": 11},
    }
    positives, examples = int(one["positives"]), int(one["examples"])
    said = f"{markup(shorten(feature, LETTERS))}: {positives:,} of {examples:,} examples have it"
    filled = (
        f"Filled: p ≤ .05 of the best unit, adjusted over {tested}." if tested else "No p values."
    )
    return theme.layout(
        width=WIDTH,
        height=HEIGHT,
        margin=MARGIN,
        title={
            "text": f"{said}<br><span style='font-size:11px'>Held-out F1. {filled} Thick: the layer of "
            "best validation F1 with the fewest units.</span>",
            "x": 0.01,
            "xanchor": "left",
            "font": {"size": 13},
        },
        xaxis=theme.axis("k, units of a probe", domain=LEFT, type="category"),
        yaxis=theme.axis("F1", **ends),
        xaxis2=theme.axis("layer", domain=RIGHT, dtick=1 if one.sizes["layer"] < 16 else None),
        yaxis2=theme.axis("F1", anchor="x2", **ends),
        legend=legend | {"x": LEFT[1] + LEGEND},
        legend2=legend | {"x": RIGHT[1] + LEGEND},
    )

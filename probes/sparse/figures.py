"""Every feature at every layer: held-out F1 of the smallest and of the largest k, side by side."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from probes.sparse.feature_figure import figure_of_feature
from probes.sparse.neuron_figure import figure_of_neurons
from workbench.errors import ResultError
from workbench.figures import Scale, Theme, markup, shorten, themed
from workbench.figures.reading import chosen

__all__ = ["figure", "figure_of_all"]

ROW, HEAD, FOOT = 22, 92, 70  # pixels
CELL, LEFT = 46, 190
BETWEEN = 0.04  # of the width
LETTERS = 26
LIKELY = 0.05


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    k: int | None = None,
    feature: str | None = None,
    layer: int | None = None,
) -> go.Figure:
    """All features; where one is named, its own figure, and where a layer is, its units' there.

    Raises:
        ResultError: the result has no such k, feature or layer, or a layer is given without a feature.
    """
    if feature is None and layer is not None:
        raise ResultError(f"layer {layer} of which feature: expected feature, too")
    if feature is None:
        return figure_of_all(data, theme=theme, k=k)
    if layer is None:
        return figure_of_feature(data, feature, theme=theme)
    return figure_of_neurons(data, feature, layer, theme=theme)


def figure_of_all(data: xr.Dataset, *, theme: str = "light", k: int | None = None) -> go.Figure:
    """A row a feature, a column a layer; "*" marks p <= .05 of the probe's best unit.

    Args:
        data: a result's dataset.
        theme: "light" or "dark".
        k: one k alone; the smallest and the largest where None.

    Raises:
        ResultError: the result has no such k.
    """
    known, look = data["k"].values.tolist(), themed(theme)
    ks = (
        list(dict.fromkeys((known[0], known[-1])))
        if k is None
        else [chosen("k", k, data["k"].values)]
    )
    traces = [_heat(data.sel(k=one), number, look) for number, one in enumerate(ks)]
    return go.Figure(traces, _layout(data, ks, look))


def _heat(of_k: xr.Dataset, number: int, theme: Theme) -> go.Heatmap:
    of_k = of_k.transpose("feature", "layer", ...)
    f1, base = of_k["f1"].values, of_k["all_positive"].values[:, None]
    likely = of_k["p"].values <= LIKELY
    text = [
        [
            f"{value:.2f}{'*' if sure else ''}".removeprefix("0")
            for value, sure in zip(*row, strict=True)
        ]
        for row in zip(f1.tolist(), likely.tolist(), strict=True)
    ]
    hover = np.stack(
        np.broadcast_arrays(of_k["f1_low"], of_k["f1_high"], of_k["p"], of_k["control_f1"], base),
        -1,
    )
    return go.Heatmap(
        z=f1,
        x=[str(layer) for layer in of_k["layer"].values.tolist()],
        y=[markup(shorten(str(name), LETTERS)) for name in of_k["feature"].values.tolist()],
        text=text,
        texttemplate="%{text}",
        textfont={"size": 11, "color": theme.cell_ink},
        customdata=hover,
        hovertemplate=(
            "%{y}, layer %{x}<br>F1 %{z:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})"
            "<br>p %{customdata[2]:.3f}, control task %{customdata[3]:.3f}"
            "<br>all positive %{customdata[4]:.3f}<extra></extra>"
        ),
        colorscale=Scale("F1", "F1", "blue", 0.0, 1.0).colours(theme),
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=1,
        showscale=False,
        xaxis=f"x{number + 1 if number else ''}",
        yaxis="y",
    )


def _layout(data: xr.Dataset, ks: list[int], theme: Theme) -> dict[str, object]:
    share = (1 - BETWEEN * (len(ks) - 1)) / len(ks)
    axes: dict[str, object] = {}
    for number, k in enumerate(ks):
        start = number * (share + BETWEEN)
        name = f"xaxis{number + 1 if number else ''}"
        axes[name] = theme.axis(
            f"layer, {k} unit{'s' if k > 1 else ''}", domain=[start, start + share], type="category"
        )
    rows = data.sizes["feature"]
    return theme.layout(
        width=LEFT + 30 + max(420, CELL * data.sizes["layer"] * len(ks)),
        height=ROW * rows + HEAD + FOOT,
        margin={"l": LEFT, "r": 16, "t": HEAD, "b": FOOT},
        title={
            "text": "Held-out F1 of sparse probes; * p ≤ .05 over all units, layers and features",
            "x": 0.01,
            "xanchor": "left",
            "font": {"size": 13},
        },
        yaxis=theme.axis("", autorange="reversed", type="category"),
        **axes,
    )

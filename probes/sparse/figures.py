"""Every feature at every layer: held-out F1 of the smallest and of the largest k, side by side.

With an SAE a row for its latents stands under each row of the site's own units; with dense probes a
block for them stands at the right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from probes.sparse.family import family, plain_name
from probes.sparse.feature_figure import figure_of_feature
from probes.sparse.neuron_figure import figure_of_neurons
from probes.sparse.rows import by_site
from workbench.errors import ResultError
from workbench.figures import Scale, Theme, markup, shorten, themed
from workbench.figures.reading import chosen

__all__ = ["figure", "figure_of_all"]

ROW, HEAD, FOOT = 22, 92, 70  # pixels
CELL, LEFT, WIDER = 46, 190, 110
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
    site: str | None = None,
) -> go.Figure:
    """All features; where one is named, its own figure, and where a layer is, its units' there.

    Args:
        data, theme, k: as for `figure_of_all`.
        feature: a feature's name.
        layer: a layer, with a feature.
        site: of which units a feature's own figure is, where there are several; the first by default.

    Raises:
        ResultError: the result has no such k, feature, layer or site, or a layer is given without a
            feature.
    """
    if feature is None and layer is not None:
        raise ResultError(f"layer {layer} of which feature: expected feature, too")
    if feature is None:
        return figure_of_all(data, theme=theme, k=k)
    sites, tested = by_site(data), family(data)
    data = sites[chosen("site", site, np.array([*sites]))]
    if layer is None:
        return figure_of_feature(data, feature, tested, theme=theme)
    return figure_of_neurons(data, feature, layer, tested, theme=theme)


def figure_of_all(data: xr.Dataset, *, theme: str = "light", k: int | None = None) -> go.Figure:
    """A row a feature (and site), a column a layer; "*" marks p <= .05 of the probe's best unit.

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
    blocks = [_Block(f"layer, {one} unit{'s' if one > 1 else ''}", one) for one in ks]
    if "dense_f1" in data:
        blocks.append(_Block("layer, dense", None))
    traces = [_heat(data, block, number, look) for number, block in enumerate(blocks)]
    return go.Figure(traces, _layout(data, blocks, look))


class _Block(NamedTuple):
    """What stands side by side: probes of k units, or, where k is None, of the whole site."""

    title: str
    k: int | None


def _rows(data: xr.Dataset) -> Iterator[tuple[str, xr.Dataset]]:
    """Each row's name and numbers, the sites of a feature one below the other."""
    sites = by_site(data)
    for feature in range(data.sizes["feature"]):
        for site, of_site in sites.items():
            one = of_site.isel(feature=feature)
            name = shorten(str(one["feature"].item()), LETTERS)
            yield (f"{name}, {plain_name(site)}" if len(sites) > 1 else name), one


def _heat(data: xr.Dataset, block: _Block, number: int, theme: Theme) -> go.Heatmap:
    rows = [one for _, one in _rows(data)]
    f1 = [_f1(one, block.k).values for one in rows]
    return go.Heatmap(
        z=np.stack(f1),
        x=[str(layer) for layer in data["layer"].values.tolist()],
        y=[markup(name) for name, _ in _rows(data)],
        text=[
            [_text(*cell) for cell in zip(values.tolist(), _likely(one, block.k), strict=True)]
            for values, one in zip(f1, rows, strict=True)
        ],
        texttemplate="%{text}",
        textfont={"size": 11, "color": theme.cell_ink},
        customdata=None if block.k is None else np.stack([_beside(one, block.k) for one in rows]),
        hovertemplate=_hover(block),
        hoverongaps=False,
        colorscale=Scale("F1", "F1", "blue", 0.0, 1.0).colours(theme),
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=1,
        showscale=False,
        xaxis=f"x{number + 1 if number else ''}",
        yaxis="y",
    )


def _f1(one: xr.Dataset, k: int | None) -> xr.DataArray:
    return one["dense_f1"] if k is None else one["f1"].sel(k=k)


def _likely(one: xr.Dataset, k: int | None) -> list[bool]:
    if k is None:
        return [False] * one.sizes["layer"]
    likely: list[bool] = (one["p"].sel(k=k).values <= LIKELY).tolist()
    return likely


def _text(value: float, likely: bool) -> str:
    """Two digits; nothing where the site has no such layer."""
    return "" if np.isnan(value) else f"{value:.2f}{'*' if likely else ''}".removeprefix("0")


def _beside(one: xr.Dataset, k: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """[layer, 5] what a cell's text adds."""
    of_k = one.sel(k=k)
    names = ("f1_low", "f1_high", "p", "control_f1", "all_positive")
    return np.stack(np.broadcast_arrays(*(of_k[name].values for name in names)), -1)


def _hover(block: _Block) -> str:
    if block.k is None:
        return "%{y}, layer %{x}<br>F1 %{z:.3f} of a dense probe of the whole site<extra></extra>"
    return (
        "%{y}, layer %{x}<br>F1 %{z:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})"
        "<br>p %{customdata[2]:.3f}, control task %{customdata[3]:.3f}"
        "<br>all positive %{customdata[4]:.3f}<extra></extra>"
    )


def _title(data: xr.Dataset) -> str:
    tested = family(data)
    said = (
        f"* p ≤ .05 of the probe's best unit, adjusted over {tested}" if tested else "no p values"
    )
    return f"Held-out F1 of sparse probes<br><span style='font-size:11px'>{said}</span>"


def _layout(data: xr.Dataset, blocks: list[_Block], theme: Theme) -> dict[str, object]:
    share = (1 - BETWEEN * (len(blocks) - 1)) / len(blocks)
    axes: dict[str, object] = {}
    for number, block in enumerate(blocks):
        start = number * (share + BETWEEN)
        name = f"xaxis{number + 1 if number else ''}"
        axes[name] = theme.axis(block.title, domain=[start, start + share], type="category")
    rows, left = len(list(_rows(data))), LEFT + (WIDER if "site" in data.dims else 0)
    return theme.layout(
        width=left + 30 + max(420, CELL * data.sizes["layer"] * len(blocks)),
        height=ROW * rows + HEAD + FOOT,
        margin={"l": left, "r": 16, "t": HEAD, "b": FOOT},
        title={
            "text": _title(data),
            "x": 0.01,
            "xanchor": "left",
            "font": {"size": 13},
        },
        yaxis=theme.axis("", autorange="reversed", type="category"),
        **axes,
    )

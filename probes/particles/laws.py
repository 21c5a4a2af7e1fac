"""How cosines are spread at each layer, beside untrained twins and shuffled tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from probes.particles.panels import CONTROLS, HEADINGS
from probes.particles.reading import counted, over_draws
from probes.particles.views import CENTRED
from workbench.errors import ResultError
from workbench.figures import Theme, layer_ticks, markup

__all__ = ["LAWS", "framed", "law"]

WIDTH, HEIGHT = 250, 250  # pixels of one heat map
LEFT, RIGHT, TOP, BOTTOM = 64, 84, 84, 52
OWN = "this prompt"
TICKS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 20)
FAINT = 0.01  # of the greatest density: the least that has a colour of its own


@dataclass(frozen=True)
class Law:
    """A histogram of a result: its variable, what is counted, and the vertical axis."""

    variable: str
    counted: str
    axis: str


LAWS: Mapping[str, Law] = {
    "cosines": Law("cosine_histogram", "pairs", "cosine of two tokens"),
    "component": Law("component_histogram", "tokens", "cosine with PC 1"),
}
"""What the figure can show beside order."""


def law(one: xr.Dataset, shows: str, look: Theme, prompt: str) -> go.Figure:
    """Layers across, cosines up, density as colour; a row a view, a column a control.

    Every column of a map sums to 1. Colours are logarithmic, over two decades, and one scale is of all
    maps: a control's narrow peak would leave nothing else of a linear one.

    Raises:
        ResultError: the result does not have it.
    """
    found = LAWS[shows]
    density = _density(one, found)
    views = [view for view in HEADINGS if view in one["view"].values]
    names = [OWN, *(it for control, it in CONTROLS.items() if _has(one, control))]
    drawn = make_subplots(
        rows=len(views),
        cols=len(names),
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.09,
    )
    for row, view in enumerate(views, 1):
        for column, name in enumerate(names, 1):
            heat = _heat(density.sel(view=_drawn(view, name)), f"{name}, {view}", found)
            drawn.add_trace(heat, row, column)
    _axes(drawn, one["layer"].values.tolist(), _range(density), views, found, look)
    said = f"{prompt}: {counted(one.sel(view=views[0]))}"
    headings = [_heading(one, name) for name in names]
    _dress(drawn, said, float(density.max()), headings, found, look)
    height = TOP + HEIGHT * len(views) + BOTTOM
    return drawn.update_layout(
        width=LEFT + WIDTH * len(names) + RIGHT, height=height, title_y=1 - 14 / height
    )


def framed(layer: int, look: Theme) -> dict[str, Any]:
    """A frame around a layer's column, which a line would cover."""
    ends = {"x0": layer - 0.5, "x1": layer + 0.5, "yref": "paper", "y0": 0, "y1": 1}
    return {"type": "rect", "line": {"color": look.accent, "width": 1.5}} | ends


def _density(one: xr.Dataset, found: Law) -> xr.DataArray:
    """Dims view, layer, cosine: share per unit of cosine, a control's over its draws."""
    if found.variable not in one or not one[found.variable].notnull().any():
        raise ResultError(
            f"no {found.counted} by {found.axis}: expected a result of expensive=True and a prompt of two "
            "tokens that count"
        )
    return over_draws(one[found.variable]) * (one.sizes["cosine"] / 2)


def _has(one: xr.Dataset, control: str) -> bool:
    return bool({control, CENTRED[control]} & set(one["view"].values.tolist()))


def _drawn(view: str, name: str) -> str:
    """The view that a map is of."""
    control = next((it for it, known in CONTROLS.items() if known == name), "raw")
    return control if view == "raw" else CENTRED[control]


def _heading(one: xr.Dataset, name: str) -> str:
    """What a column is of; of a control the mean over its draws."""
    if name == OWN:
        return name
    control = next(it for it, known in CONTROLS.items() if known == name)
    those = one["tokens"].sel(view=[v for v in (control, CENTRED[control]) if v in one["view"]])
    count = int(those.notnull().any(("view", "layer")).sum())
    if control == "random":
        return f"mean of {count} {name}s" if count > 1 else name
    return f"{name}, mean of {count} orders" if count > 1 else name


def _heat(density: xr.DataArray, name: str, found: Law) -> go.Heatmap:
    values = density.transpose("cosine", "layer")
    return go.Heatmap(
        x=values["layer"].values.tolist(),
        y=values["cosine"].values.tolist(),
        z=np.log10(values.where(values > 0).to_numpy()).tolist(),
        customdata=values.values.tolist(),
        coloraxis="coloraxis",
        hovertemplate=(
            "layer %{x}, cosine %{y:.3f}: density %{customdata:.3g}"
            f"<extra>{markup(name)}, {found.counted}</extra>"
        ),
    )


def _range(density: xr.DataArray) -> list[float]:
    """Where anything is, and 1 and 0."""
    there = density.notnull() & (density > 0)
    seen = density["cosine"].values[there.any(("view", "layer")).to_numpy()]
    half = 1 / density.sizes["cosine"]
    return [min(float(seen.min()) - half, 0.0), 1.0]


def _axes(
    drawn: go.Figure,
    layers: list[int],
    span: list[float],
    views: list[str],
    found: Law,
    look: Theme,
) -> None:
    drawn.update_xaxes(look.axis("", **layer_ticks(layers)))
    drawn.update_xaxes(title_text="layer", row=len(views))
    drawn.update_yaxes(look.axis("", range=span))
    for row, view in enumerate(views, 1):
        drawn.update_yaxes(title_text=f"{found.axis}, {view}", row=row, col=1)


def _dress(
    drawn: go.Figure, said: str, most: float, headings: list[str], found: Law, look: Theme
) -> None:
    ticks = [tick for tick in TICKS if FAINT * most <= tick <= most]
    bar: dict[str, Any] = {
        "title": {"text": "density"},
        "tickvals": np.log10(ticks).tolist(),
        "ticktext": [f"{tick:g}" for tick in ticks],
        "thickness": 12,
    }
    low, high = np.log10([FAINT * most, most]).tolist()
    colours = {"colorscale": list(look.hues["blue"]), "cmin": low, "cmax": high, "colorbar": bar}
    annotations = [
        {
            "text": f"<b>{heading}</b>",
            "x": sum(drawn.get_subplot(1, column).xaxis.domain) / 2,
            "y": 1.0,
            "xref": "paper",
            "yref": "paper",
            "xanchor": "center",
            "yanchor": "bottom",
            "showarrow": False,
        }
        for column, heading in enumerate(headings, 1)
    ]
    drawn.update_layout(
        look.layout(
            margin={"l": LEFT, "r": RIGHT, "t": TOP, "b": BOTTOM},
            coloraxis=colours,
            annotations=annotations,
            title={"text": f"{markup(said)}<br>{_colour(found)}", "font": {"size": 13}}
            | {"x": 0, "xref": "paper", "yanchor": "top"},
        )
    )


def _colour(found: Law) -> str:
    sign = "; a component's sign is each layer's own" if found.counted == "tokens" else ""
    return f"density: share of {found.counted} per unit of cosine, logarithmic{sign}"

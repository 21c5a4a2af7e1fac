"""A whole reading at a glance."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.axes import layer_ticks
from workbench.figures.grid import MARGIN
from workbench.figures.scale import Scale
from workbench.figures.theme import Theme

__all__ = ["layer_strip"]


def layer_strip(values: xr.DataArray, scale: Scale, theme: Theme) -> go.Figure:
    """Every layer and position at a glance, without text; values with dims (layer, position)."""
    layers, positions = (values[axis].values.tolist() for axis in ("layer", "position"))
    heat = go.Heatmap(
        z=values.values.astype(np.float32),
        x=positions,
        y=layers,
        zmin=scale.low,
        zmax=scale.high,
        colorscale=scale.colours(theme),
        showscale=False,
        hovertemplate="layer %{y} · position %{x}<extra></extra>",
    )
    layout = theme.layout(
        xaxis=theme.axis(range=[positions[0] - 0.5, positions[-1] + 0.5]),
        yaxis=theme.axis(
            "layer", range=[layers[0] - 0.5, layers[-1] + 0.5], **layer_ticks(layers, most=3)
        ),
        margin={"l": MARGIN["l"], "r": MARGIN["r"], "t": 10, "b": 20},
        height=116,
    )
    return go.Figure(heat, layout)

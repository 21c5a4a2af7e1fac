"""The figure of layers as a flow: its panels over a prompt's tokens, or over all prompts."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from probes.flow.orders import LABELS
from probes.flow.panels import panels
from probes.flow.rows import firsts
from workbench.figures import layer_panels, markup, shorten, themed
from workbench.figures.reading import chosen

__all__ = ["figure", "heading"]


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
) -> go.Figure:
    """Panels side by side; see `LayerFlow.figure`.

    Raises:
        ResultError: the result has no such prompt.
    """
    names = data["prompt"].values
    if prompt is not None:
        data = data.isel(place=np.flatnonzero(names == chosen("prompt", prompt, names)))
    layer, position = (None, None) if selected is None else selected
    drawn = layer_panels(
        {"Layers as a flow": panels(data)},
        themed(theme),
        layer=layer if layer in data["layer"].values else None,
        position=position,
    )
    said = heading(data, None if prompt is None else str(prompt))
    margin = drawn.layout.margin.t + 18 * len(said)
    return drawn.update_layout(
        title={
            "text": "<br>".join(said),
            "x": 0.01,
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 8},
            "font": {"size": 12},
        },
        margin={"t": margin},
        height=drawn.layout.height + 18 * len(said),
    )


def heading(data: xr.Dataset, prompt: str | None) -> list[str]:
    """What is drawn, and what has no layer: exponents, and losses with every block reordered."""
    tokens, prompts = data.sizes["place"], len(set(data["prompt"].values.tolist()))
    over = f"{prompts} prompts" if prompt is None else markup(shorten(prompt, 40))
    said = [f"<b>Medians and quartiles over {tokens} tokens of {over}</b>"]
    if "exponents" in data:
        said.append(f"Exponents, nat per layer: {_exponents(firsts(data))}")
    if "loss_change" in data:
        said.append(f"Δ loss with every block so, nat per token: {_losses(firsts(data))}")
    return said


def _exponents(prompts: xr.Dataset) -> str:
    means = prompts["exponents"].mean("place")
    said = [", ".join(f"{x:.3g}" for x in means.sel(view="model").values)]
    if "random" in means["view"].values:
        said.append("twin " + ", ".join(f"{x:.3g}" for x in means.sel(view="random").values))
    return "; ".join(said)


def _losses(prompts: xr.Dataset) -> str:
    means = prompts["loss_change"].mean("place")
    own = means.sel(view="model")
    said = ", ".join(
        f"{LABELS[order]} {float(own.sel(order=order)):+.3g}"
        for order in own["order"].values.tolist()
    )
    loss = prompts["loss"].mean("place")
    after = f" (the model itself {float(loss.sel(view='model')):.3g}"
    if "random" in loss["view"].values:
        most = float(np.abs(means.sel(view="random")).max())
        after += f"; twin {float(loss.sel(view='random')):.3g}, changed by at most {most:.2g}"
    return f"{said}{after})"

"""The figure of layers as a flow: its panels over a prompt's tokens, or over all prompts."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from probes.flow.panels import SHORT, panels
from probes.flow.rows import firsts
from workbench.figures import headed, layer_panels, markup, shorten, themed
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
        {"Model as flow": panels(data)},
        themed(theme),
        layer=layer if layer in data["layer"].values else None,
        position=position,
    )
    return headed(drawn, heading(data, None if prompt is None else str(prompt)))


def heading(data: xr.Dataset, prompt: str | None) -> list[str]:
    """What is drawn, and what has no layer: exponents, and losses with every block reordered."""
    tokens, prompts = data.sizes["place"], len(set(data["prompt"].values.tolist()))
    over = (
        f"{prompts} prompt{'s' if prompts > 1 else ''}"
        if prompt is None
        else markup(shorten(prompt, 40))
    )
    note = "A: attention, M: MLP" if "bracket" in data or "loss" in data else ""
    said = [
        f"<b>Medians and quartiles over {tokens} token{'s' if tokens > 1 else ''} of {over}</b>  {note}"
    ]
    if "exponents" in data:
        means = firsts(data)["exponents"].mean("place")
        said.append(f"Exponents of a random frame, nat per layer: {_exponents(means)}")
    if "loss_change" in data:
        said += _losses(firsts(data))
    return said


def _exponents(means: xr.DataArray) -> str:
    names = {"model": "", "random": "twin "}
    return "; ".join(
        names[view] + ", ".join(f"{x:.3f}" for x in means.sel(view=view).values)
        for view in means["view"].values.tolist()
    )


def _losses(prompts: xr.Dataset) -> list[str]:
    """Mean loss of the model and of its twin, and the change with every block in each other order."""
    found = []
    for view in prompts["view"].values.tolist():
        one = prompts.sel(view=view).mean("place")
        said = ", ".join(
            f"{SHORT[order]} {float(one['loss_change'].sel(order=order)):+.3g}"
            for order in one["order"].values.tolist()
        )
        who = "Loss" if view == "model" else "Twin's loss"
        found.append(f"{who} {float(one['loss']):.3g} nat per token; every block so: {said}")
    return found

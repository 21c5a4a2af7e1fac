"""Edge attribution on the layer axis, and what it says of one layer."""

from __future__ import annotations

import numpy as np
import xarray as xr

from probes.circuits.edge_rows import largest
from workbench.figures.panels import Heat, Line, Lines, Panel
from workbench.figures.reading import chosen
from workbench.figures.scale import Scale

__all__ = ["facts", "panels"]

TOLD = 3


def panels(data: xr.Dataset, *, prompt: str | int | None = None) -> list[Panel]:
    """Sums of |score| over the edges out of each head, and out of and into each layer.

    Raises:
        ResultError: the result has no such prompt.
    """
    one = _one(data, prompt)
    unit, sizes = one["score"].attrs["unit"], abs(one["score"])
    out = sizes.sum("receiver")
    of_head = out.isel(sender=np.flatnonzero(one["sender_part"].values == "head"))
    layers = sorted(set(of_head["sender_layer"].values.tolist()))
    grid = xr.DataArray(
        of_head.values.reshape(len(layers), -1),
        dims=("layer", "head"),
        coords={"layer": layers, "head": np.arange(len(of_head) // len(layers))},
    )
    lines = {
        "heads, out": Line(grid.sum("head")),
        "MLP, out": Line(_by_layer(out, "sender", "mlp")),
        "MLP, into": Line(_by_layer(sizes.sum("sender"), "receiver", "mlp")),
    }
    scale = Scale("sum of |score|", unit, "blue", 0.0, float(grid.max()) or 1.0)
    return [
        Lines("edges", f"sum of |score|, {unit}", lines),
        Heat("senders", "out of each head", grid, scale),
    ]


def _by_layer(values: xr.DataArray, dim: str, part: str) -> xr.DataArray:
    here = values.isel({dim: np.flatnonzero(values[f"{dim}_part"].values == part)})
    layers = here[f"{dim}_layer"].values
    return xr.DataArray(here.values, dims=("layer",), coords={"layer": layers})


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None
) -> list[tuple[str, str]]:
    """The largest edges out of and into a layer, approximate."""
    one = _one(data, prompt)
    unit, found = one["score"].attrs["unit"], []
    for dim, name in (("sender", "out of"), ("receiver", "into")):
        here = one.isel({dim: np.flatnonzero(one[f"{dim}_layer"].values == layer)})
        if here.sizes[dim]:
            edges = [
                f"{edge['sender']} → {edge['receiver']} {edge['score']:+.3g}"
                for edge in largest(here, TOLD)
            ]
            found.append((f"largest edges {name} layer {layer}, {unit}", "; ".join(edges)))
    return found


def _one(data: xr.Dataset, prompt: str | int | None) -> xr.Dataset:
    name = chosen("prompt", prompt, data["prompt"].values)
    return data.isel(place=int(np.flatnonzero(data["prompt"].values == name)[0]))

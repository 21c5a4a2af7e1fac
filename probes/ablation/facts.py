"""What is known of the ablations of one layer in one prompt."""

from __future__ import annotations

import numpy as np
import xarray as xr

from probes.ablation.panels import METRICS, of_prompt
from probes.ablation.rows import effects, settings_of

__all__ = ["facts"]

NAMES = {"head": "head", "layer_end": "up to layer"}


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None
) -> list[tuple[str, str]]:
    """Change of score and of loss, with their controls; of heads and ranges the largest."""
    if layer not in data["layer"].values:
        return []
    one = of_prompt(data, prompt).isel(place=0).sel(layer=layer)
    said = {"score": METRICS[settings_of(data)["metric"]], "loss": "loss"}
    found, known = effects(one), []
    for name, title in said.items():
        values = found[name]
        if not np.isfinite(values.values).any():
            continue
        at = {}
        if values.ndim:
            at = {
                values.dims[0]: values[values.dims[0]].values[int(np.nanargmax(abs(values.values)))]
            }
        who = "".join(f", {NAMES[str(dim)]} {value} (largest)" for dim, value in at.items())
        number = f"{float(values.sel(at)):+.4g} {values.attrs['unit']}"
        if f"random_{name}" in found:
            number += f" (control {float(found[f'random_{name}'].sel(at)):+.4g})"
        known.append((f"Δ {title}{who}", number))
    return known

"""Token geometry on the layer axis: mean cosine beside its control, and one token's cosines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from probes.geometry.rows import of_prompt
from workbench.figures.panels import Heat, Line, Lines, Panel
from workbench.figures.reading import chosen
from workbench.figures.scale import Scale
from workbench.figures.tokens import visible

__all__ = ["facts", "panels"]


def panels(
    data: xr.Dataset, *, prompt: str | int | None = None, position: int | None = None
) -> Sequence[Panel]:
    """Mean cosine of the prompt's tokens; cosines of one of them with each."""
    one = of_prompt(data, prompt)
    first = one.isel(place=0)
    found: list[Panel] = []
    if first["mean_cosine"].notnull().any():
        lines = {"this model": Line(first["mean_cosine"])}
        if "mean_cosine_twin" in first:
            lines["untrained twin"] = Line(first["mean_cosine_twin"], control=True)
        least = min(0.0, *(float(line.values.min()) for line in lines.values()))
        found.append(Lines("mean-cosine", "mean cosine, raw", lines, (least - 0.03, 1.03)))
    cosine = one["cosine"].isel(place=_place(one, position)).transpose("layer", "other")
    values = cosine.drop_vars(["prompt", "position", "token"]).rename(other="position")
    values = values.assign_coords(position=one["position"].values)
    scale = Scale("cosine", "raw", "signed", -1, 1)
    return [*found, Heat("cosines", "cosine with the token", values, scale)]


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None, position: int | None = None
) -> list[tuple[str, str]]:
    """Of one token at one layer."""
    one = of_prompt(data, prompt)
    place = _place(one, position)
    here = one.sel(layer=layer)
    found = [("norm", f"{float(here['norm'][place]):.4g}")]
    if one.sizes["place"] > 1:
        own = here["cosine"].isel(place=place).values.copy()
        own[place] = -np.inf
        near = int(own.argmax())
        token = visible(str(one["token"].values[near]))
        said = f"{token} at {int(one['position'][near])}, cosine {own[near]:.3f}"
        found.append(("nearest token", said))
        found.append(("mean cosine of the prompt", f"{float(here['mean_cosine'][0]):.3f}"))
    shown = float((here["point"].isel(place=place) ** 2).sum())
    return [*found, ("shown by three directions", f"{shown:.0%}")]


def _place(one: xr.Dataset, position: int | None) -> int:
    """Which place is at a position; the last one where None.

    Raises:
        ResultError: none is.
    """
    positions = one["position"].values
    wanted = positions[-1] if position is None else chosen("position", position, positions)
    return int(np.flatnonzero(positions == wanted)[0])

"""Token geometry on the layer axis: mean cosine beside its control, and one token's cosines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from probes.token_geometry.rows import of_prompt
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
    first, view = one.isel(place=0), str(one["view"].values[-1])
    found: list[Panel] = []
    if first["mean_cosine"].notnull().any():
        lines = _lines(first)
        least = min(0.0, *(float(line.values.min()) for line in lines.values()))
        found.append(Lines("mean-cosine", "mean cosine", lines, (least - 0.03, 1.03)))
    cosine = one["cosine"].sel(view=view).isel(place=_place(one, position))
    values = cosine.drop_vars(["prompt", "position", "token"]).rename(other="position")
    values = values.assign_coords(position=one["position"].values).transpose("layer", "position")
    scale = Scale("cosine", view, "signed", -1, 1)
    return [*found, Heat("cosines", f"cosine with the token, {view}", values, scale)]


def _lines(first: xr.Dataset) -> dict[str, Line]:
    lines = {}
    for view in first["view"].values.tolist():
        lines[view] = Line(first["mean_cosine"].sel(view=view))
        if "mean_cosine_twin" in first:
            twin = first["mean_cosine_twin"].sel(view=view)
            lines[f"twin, {view}"] = Line(twin, control=True)
    return lines


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None, position: int | None = None
) -> list[tuple[str, str]]:
    """Of one token at one layer, in each view."""
    one = of_prompt(data, prompt)
    place = _place(one, position)
    here = one.sel(layer=layer)
    found = [("norm", f"{float(here['norm'][place]):.4g}")]
    for view in one["view"].values.tolist():
        found += _facts(here.sel(view=view), place, view)
    return found


def _facts(here: xr.Dataset, place: int, view: str) -> list[tuple[str, str]]:
    shown = float((here["point"].isel(place=place) ** 2).sum())
    found = [(f"in three directions, {view}", f"{shown:.0%}")]
    if here.sizes["place"] < 2:
        return found
    own = here["cosine"].isel(place=place).values.copy()
    own[place] = -np.inf
    near = int(own.argmax())
    token = visible(str(here["token"].values[near]))
    said = f"{token} at {int(here['position'][near])}, cosine {own[near]:.3f}"
    mean = f"{float(here['mean_cosine'][0]):.3f}"
    return [(f"nearest token, {view}", said), (f"mean cosine, {view}", mean), *found]


def _place(one: xr.Dataset, position: int | None) -> int:
    """Which place is at a position; the last one where None.

    Raises:
        ResultError: none is.
    """
    positions = one["position"].values
    wanted = positions[-1] if position is None else chosen("position", position, positions)
    return int(np.flatnonzero(positions == wanted)[0])

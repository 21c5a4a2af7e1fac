"""Attribution patching of one prompt: approximate and exact heat maps side by side, on one colour scale."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from probes.circuits.maps import LETTERS, Map, drawn, scale_of
from probes.circuits.reading import SITES, heading, of_prompt, settings_of
from workbench.figures import shorten, themed, visible

__all__ = ["figure"]


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
) -> go.Figure:
    """Sites side by side; with exact effects a row a site, the approximation left and the truth right.

    Heads are shown at the selected position, the last one where none is selected. All maps share one
    colour scale, and every title of an approximation says so.

    Raises:
        ResultError: the result has no such prompt.
    """
    look, one = themed(theme), of_prompt(data, prompt)
    rows = _rows(one, selected)
    scale = scale_of([each.values for row in rows for each in row], str(one["clean"].attrs["unit"]))
    return drawn(rows, scale, one, [*heading(one), *_said(one)], selected, look)


def _said(one: xr.Dataset) -> list[str]:
    """What is approximate, and what is exact."""
    steps = settings_of(one)["steps"]
    slope = f"mean gradient of {steps} points between the runs" if steps else "gradient"
    said = [f"approximate: {slope} times difference, nothing is patched"]
    if any(str(name).startswith("exact_") for name in one):
        said.append(
            "exact: every cell patched; rank correlation: Spearman's, over the cells that can have an effect"
        )
    return said


def _rows(one: xr.Dataset, selected: tuple[int, int] | None) -> list[list[Map]]:
    """The maps, row by row."""
    sites = one["site"].values.tolist() if "effect" in one else []
    pairs = [_pair(one.sel(site=site), "", SITES[site], "position") for site in sites]
    if "head_effect" in one:
        positions = one["position"].values.tolist()
        at = selected[1] if selected is not None and selected[1] in positions else positions[-1]
        here = one.sel(position=at)
        token = shorten(visible(str(here["token"].item())), LETTERS)
        pairs.append(_pair(here, "head_", f"heads at {at} {token}", "head"))
    if any(len(pair) > 1 for pair in pairs):
        return pairs
    return [[pair[0] for pair in pairs]]


def _pair(one: xr.Dataset, prefix: str, name: str, across: str) -> list[Map]:
    """The approximate map of a site, and the exact one where it was measured."""
    found = [Map(f"{name}: approximate", one[f"{prefix}effect"].transpose("layer", across))]
    if f"exact_{prefix}effect" in one:
        rho = float(np.ravel(one[f"{prefix}rank_correlation"].values)[0])
        said = (
            "effects too few or too alike to rank"
            if np.isnan(rho)
            else f"rank correlation {rho:.2f}"
        )
        exact = one[f"exact_{prefix}effect"].transpose("layer", across)
        found.append(Map(f"{name}: exact ({said})", exact))
    return found

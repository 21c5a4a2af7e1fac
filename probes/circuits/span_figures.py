"""A span trace of one prompt: spans as they were measured, split where their effect was large."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import xarray as xr

from probes.circuits.maps import Map, drawn, scale_of
from probes.circuits.reading import SITES, heading, of_prompt
from probes.circuits.span_rows import spans_of
from workbench.figures import Theme, themed

__all__ = ["figure"]

FAINT = 0.55  # opacity of what was measured only as part of a span


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
) -> go.Figure:
    """Sites below each other; a span of several tokens is faint and framed, as one cell.

    Raises:
        ResultError: the result has no such prompt.
    """
    look, one = themed(theme), of_prompt(data, prompt)
    sites = one["site"].values.tolist()
    maps = [Map(SITES[site], _of(one, "effect", site)) for site in sites]
    together = [_of(one, "span_effect", site) for site in sites]
    scale = scale_of(together, str(one["effect"].attrs["unit"]))
    found = drawn(
        [[each] for each in maps], scale, one, [*heading(one), *_said(one)], selected, look
    )
    for number, (site, values) in enumerate(zip(sites, together, strict=True)):
        singles = found.data[number]
        faint = go.Heatmap(singles)
        faint.update(z=values.values.astype("float32"), opacity=FAINT, showscale=False)
        faint.update(text=_spans(one, values), hovertemplate=_hover(site, scale.unit))
        found.add_trace(faint)
        found.layout.shapes += tuple(_frames(one, site, number, look))
    found.data = (*found.data[len(sites) :], *found.data[: len(sites)])
    return found


def _of(one: xr.Dataset, name: str, site: str) -> xr.DataArray:
    return one[name].sel(site=site).transpose("layer", "position")


def _hover(site: str, unit: str) -> str:
    return "layer %{y}, %{text}<br>%{z:.3g} " + f"{unit}<extra>{SITES[site]}, span</extra>"


def _spans(one: xr.Dataset, values: xr.DataArray) -> list[list[str]]:
    """The ends of the span that each cell was measured in."""
    site = values["site"].item()
    first, last = (_of(one, name, site).values for name in ("span_first", "span_last"))
    return [
        [f"positions {a} to {b}, all at once" for a, b in zip(*row, strict=True)]
        for row in zip(first, last, strict=True)
    ]


def _frames(one: xr.Dataset, site: str, number: int, look: Theme) -> list[dict[str, Any]]:
    """A frame around each span of several tokens."""
    suffix = str(number + 1) if number else ""
    positions = one["position"].values.tolist()
    pen = {"type": "rect", "line": {"color": look.muted, "width": 1}}
    return [
        pen
        | {"x0": positions.index(first) - 0.45, "x1": positions.index(last) + 0.45}
        | {"y0": layer - 0.45, "y1": layer + 0.45, "xref": f"x{suffix}", "yref": f"y{suffix}"}
        for layer in one["layer"].values.tolist()
        for first, last, _, _ in spans_of(one.sel(site=site, layer=layer))
        if last > first
    ]


def _said(one: xr.Dataset) -> list[str]:
    took, grid = (int(one[name].values[0]) for name in ("block_tokens", "grid_block_tokens"))
    return [
        "framed and faint: tokens that were patched only together, coloured by the effect of all at once",
        f"{took:,} block-tokens; one token at a time {grid:,} ({took / grid:.0%})",
    ]

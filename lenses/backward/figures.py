"""The figure of a backward-lens result: one position's tables by layer, each beside its controls."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from lenses.backward.maps import WRITE
from lenses.backward.panels import ranks, share, tokens
from workbench.errors import ResultError
from workbench.figures import Panel, layer_panels, themed
from workbench.figures.generic import at_place

__all__ = ["figure"]


def _differs(name: str, variant: str) -> bool:
    """Whether a control's table can be another: an input is the same whatever is aimed at."""
    return variant != "random target" or name in WRITE


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    position: int | None = None,
    map: str | None = None,
) -> go.Figure:
    """Tokens of each map at one position, its rest and its controls, ranks, and who writes.

    Args:
        data: a result's dataset.
        theme: "light" or "dark".
        prompt: id of the prompt; the first one where None.
        selected: the (layer, position) to mark; its position is the one that is drawn.
        position: the position to draw; the prompt's last where None and nothing is selected.
        map: the map to draw; all where None.

    Raises:
        ResultError: the result has no such prompt, position or map.
    """
    layer, position = (None, position) if selected is None else selected
    known = data["map"].values.tolist()
    if map is not None and map not in known:
        raise ResultError(f"no map {map!r} in this result: expected one of {', '.join(known)}")
    place = at_place(data, prompt, position)
    groups: dict[str, list[Panel]] = {}
    for name in known if map is None else [map]:
        found = tokens(place, name) + tokens(place, name, what="rest")
        for variant in data["variant"].values.tolist()[1:]:
            found += tokens(place, name, variant) if _differs(name, variant) else []
        groups[f"{name}, position {int(place['position'])}"] = [
            *found,
            *ranks(place, name),
            share(data, prompt, name),
        ]
    return layer_panels(groups, themed(theme), layer=layer, position=int(place["position"]))

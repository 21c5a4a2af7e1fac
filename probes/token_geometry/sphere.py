"""The sphere from two sides, one frame a layer: seen across, and along the direction tokens share.

Two flat projections instead of one picture in perspective: they need no WebGL, print, and show
lengths as they are. A point inside the circle has the rest of its direction in dimensions unseen.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import xarray as xr

from workbench.figures import Theme, layer_name, markup, shorten, visible

__all__ = ["controls", "frames", "points", "sides"]

SAID = (
    "{view} states in three directions common to all layers, from two sides.<br><sub>Filled: towards the "
    "reader; hollow: away. Colour: the place in the order.<br>On the circle all of a token's direction is "
    "shown, at its centre none.</sub>"
)
SIDES = ((0, 1, 2), (2, 1, 0))  # across, up, towards the reader
ENDS = ((-1.08, 1.08), (1.08, -1.08))  # seen along the first, the third runs to the left: no mirror
NAMES = ("first direction", "second direction", "third direction")
DISC = 350  # pixels
APART = 110
FLOOR = 150  # pixels below the discs, for axes and the slider
MOST_NAMED = 24
COLOURS = "Turbo"
REST = 800  # milliseconds at a layer


def sides(first: int, view: str, room: tuple[int, int], look: Theme) -> dict[str, Any]:
    """Axes and outlines of both sides; their axes are numbered from `first`."""
    found: dict[str, Any] = {"shapes": [], "annotations": [_heading(view, room, look)]}
    for number, (across, up, _) in enumerate(SIDES):
        axis, left = first + number, (10 + number * (DISC + APART)) / room[0]
        width = DISC / room[0]
        down = [FLOOR / room[1], (FLOOR + DISC) / room[1]]
        found[f"xaxis{axis}"] = look.axis(
            NAMES[across], domain=[left, left + width], anchor=f"y{axis}", range=ENDS[number]
        )
        found[f"yaxis{axis}"] = look.axis(NAMES[up], domain=down, anchor=f"x{axis}", range=ENDS[0])
        for name in (f"xaxis{axis}", f"yaxis{axis}"):
            found[name] |= {"zeroline": True, "zerolinecolor": look.rule, "dtick": 0.5}
        found["shapes"].append(_outline(axis, look))
    return found


def _heading(view: str, room: tuple[int, int], look: Theme) -> dict[str, Any]:
    place = {"x": 0, "y": (FLOOR + DISC + 8) / room[1], "xref": "paper", "yref": "paper"}
    font = {"size": 13, "color": look.ink}
    anchors = {"xanchor": "left", "yanchor": "bottom", "align": "left", "showarrow": False}
    return {"text": SAID.format(view=view.capitalize()), "font": font} | place | anchors


def _outline(axis: int, look: Theme) -> dict[str, Any]:
    ends = {"x0": -1, "x1": 1, "y0": -1, "y1": 1, "xref": f"x{axis}", "yref": f"y{axis}"}
    line = {"color": look.muted, "width": 1}
    return {"type": "circle", "layer": "below", "line": line} | ends


def points(one: xr.Dataset, layer: int, first: int, look: Theme) -> list[go.Scatter]:
    """All tokens at one layer, of each view from each side; the last view alone is visible."""
    views = one["view"].values.tolist()
    return [
        go.Scatter(
            **_at(one.sel(view=view, layer=layer), side),
            xaxis=f"x{first + number}",
            yaxis=f"y{first + number}",
            mode="markers+text" if one.sizes["place"] <= MOST_NAMED else "markers",
            textposition="top center",
            textfont={"size": 10, "color": look.ink},
            cliponaxis=False,
            visible=view == views[-1],
            hovertemplate="%{hovertext}<extra></extra>",
        )
        for view in views
        for number, side in enumerate(SIDES)
    ]


def frames(one: xr.Dataset, traces: int) -> list[go.Frame]:
    """One a layer; only the points move, which follow `traces` others."""
    views = one["view"].values.tolist()
    return [
        go.Frame(
            name=str(layer),
            data=[
                go.Scatter(**_at(one.sel(view=view, layer=layer), side))
                for view in views
                for side in SIDES
            ],
            traces=[traces + number for number in range(len(views) * len(SIDES))],
        )
        for layer in one["layer"].values.tolist()
    ]


def _at(here: xr.Dataset, side: tuple[int, int, int]) -> dict[str, Any]:
    """What changes with the layer. A token's colour is its rank; what is behind is hollow."""
    place = here["point"].transpose("place", "axis").values
    across, up, towards = side
    layer = int(here["layer"])
    named = f"{here['view'].item()}, layer {layer_name(layer)}"
    tokens = [visible(str(token)) for token in here["token"].values.tolist()]
    positions = here["position"].values.tolist()
    fronts = (place[:, towards] >= 0).tolist()
    return {
        "x": place[:, across].tolist(),
        "y": place[:, up].tolist(),
        "text": [markup(shorten(token, 10)) for token in tokens],
        "hovertext": [
            f"{named}<br>{markup(token)} at {position}<br>{length:.0%} of its direction is shown"
            for token, position, length in zip(
                tokens, positions, (place**2).sum(-1).tolist(), strict=True
            )
        ],
        "customdata": [f"{layer} {position}" for position in positions],
        "marker": {
            "color": here["order"].values.tolist(),
            "colorscale": COLOURS,
            "cmin": 0,
            "cmax": max(1, len(tokens) - 1),
            "size": 9,
            "symbol": ["circle" if front else "circle-open" for front in fronts],
            "line": {"width": 1.5},
        },
    }


def controls(
    one: xr.Dataset, start: int, traces: int, room: tuple[int, int], look: Theme
) -> dict[str, Any]:
    """View, play, pause, and a slider whose steps say how much of the directions is shown."""
    layers, views = one["layer"].values.tolist(), one["view"].values.tolist()
    shares = one["captured"].isel(place=0).transpose("layer", "view").values.tolist()
    steps = [
        {
            "label": f"{layer_name(layer)} · {' / '.join(f'{share:.0%}' for share in captured)}",
            "method": "animate",
            "args": [[str(layer)], _move(0)],
        }
        for layer, captured in zip(layers, shares, strict=True)
    ]
    said = f"layer · squared length in three directions, {' / '.join(views)}: "
    plain = {"bgcolor": look.paper, "bordercolor": look.muted, "font": {"color": look.ink}}
    low = {"y": 0.0, "yanchor": "bottom"}
    slider = {
        "active": layers.index(start),
        "steps": steps,
        "x": 0.17,
        "len": 0.86,
        "pad": {"b": 14},
        "currentvalue": {"prefix": said},
        "transition": {"duration": 0},
    }
    play = [
        {"label": "Play", "method": "animate", "args": [None, _move(REST) | {"fromcurrent": True}]},
        {"label": "Pause", "method": "animate", "args": [[None], _move(0)]},
    ]
    shared = {"type": "buttons", "direction": "right", "xanchor": "left"} | plain
    menus = [{"buttons": play, "showactive": False, "x": -0.08, "pad": {"b": 30}, **low, **shared}]
    if len(views) > 1:
        place = {
            "x": 1.02,
            "xanchor": "right",
            "y": (FLOOR + DISC + 12) / room[1],
            "yanchor": "bottom",
        }
        menus.append({"buttons": _choice(views, traces), "showactive": False, **shared, **place})
    return {"sliders": [slider | low | plain], "updatemenus": menus}


def _choice(views: list[str], traces: int) -> list[dict[str, Any]]:
    """A button a view, which shows its points and hides the others'; the heading says which it is."""
    moved = [traces + number for number in range(len(views) * len(SIDES))]
    return [
        {
            "label": view,
            "method": "update",
            "args": [
                {"visible": [other == view for other in views for _ in SIDES]},
                {"annotations[0].text": SAID.format(view=view.capitalize())},
                moved,
            ],
        }
        for view in views
    ]


def _move(rest: int) -> dict[str, Any]:
    """Redrawn whole: plotly takes heat maps off while points glide."""
    frame = {"duration": rest, "redraw": True}
    return {"mode": "immediate", "frame": frame, "transition": {"duration": 0}}

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
    "All tokens in three directions common to all layers, from two sides. Filled: towards the reader; "
    "hollow: away.<br><sub>Colour: the place in the order. On the circle all of a token's direction is "
    "shown, at its centre none.</sub>"
)
VIEWS = ((0, 1, 2), (2, 1, 0))  # across, up, towards the reader
NAMES = ("first direction", "second direction", "third direction")
DISC = 380  # pixels
APART = 130
FLOOR = 150  # pixels below the discs, for axes and the slider
MOST_NAMED = 24
COLOURS = "Turbo"
TURN, REST = 350, 500  # milliseconds between and at layers


def sides(first: int, room: tuple[int, int], look: Theme) -> dict[str, Any]:
    """Axes and outlines of both views; their axes are numbered from `first`."""
    found: dict[str, Any] = {"shapes": [], "annotations": [_heading(room, look)]}
    for number, (across, up, _) in enumerate(VIEWS):
        axis, left = first + number, (30 + number * (DISC + APART)) / room[0]
        width = DISC / room[0]
        down = [FLOOR / room[1], (FLOOR + DISC) / room[1]]
        found[f"xaxis{axis}"] = look.axis(
            NAMES[across], domain=[left, left + width], anchor=f"y{axis}", range=[-1.08, 1.08]
        )
        found[f"yaxis{axis}"] = look.axis(
            NAMES[up], domain=down, anchor=f"x{axis}", range=[-1.08, 1.08]
        )
        for name in (f"xaxis{axis}", f"yaxis{axis}"):
            found[name] |= {"zeroline": True, "zerolinecolor": look.rule, "dtick": 0.5}
        found["shapes"].append(_outline(axis, look))
    return found


def _heading(room: tuple[int, int], look: Theme) -> dict[str, Any]:
    place = {"x": 0, "y": (FLOOR + DISC + 8) / room[1], "xref": "paper", "yref": "paper"}
    font = {"size": 13, "color": look.ink}
    anchors = {"xanchor": "left", "yanchor": "bottom", "align": "left", "showarrow": False}
    return {"text": SAID, "font": font} | place | anchors


def _outline(axis: int, look: Theme) -> dict[str, Any]:
    ends = {"x0": -1, "x1": 1, "y0": -1, "y1": 1, "xref": f"x{axis}", "yref": f"y{axis}"}
    line = {"color": look.muted, "width": 1}
    return {"type": "circle", "layer": "below", "line": line} | ends


def points(one: xr.Dataset, layer: int, first: int, look: Theme) -> list[go.Scatter]:
    """All tokens at one layer in both views."""
    return [
        go.Scatter(
            **_at(one, layer, view),
            xaxis=f"x{first + number}",
            yaxis=f"y{first + number}",
            mode="markers+text" if one.sizes["place"] <= MOST_NAMED else "markers",
            textposition="top center",
            textfont={"size": 10, "color": look.ink},
            cliponaxis=False,
            hovertemplate="%{hovertext}<extra></extra>",
        )
        for number, view in enumerate(VIEWS)
    ]


def frames(one: xr.Dataset, traces: int) -> list[go.Frame]:
    """One a layer; only the points of the two last traces move."""
    moved = [traces + number for number in range(len(VIEWS))]
    return [
        go.Frame(
            name=str(layer),
            data=[go.Scatter(**_at(one, layer, view)) for view in VIEWS],
            traces=moved,
        )
        for layer in one["layer"].values.tolist()
    ]


def _at(one: xr.Dataset, layer: int, view: tuple[int, int, int]) -> dict[str, Any]:
    """What changes with the layer. A token's colour is its rank; what is behind is hollow."""
    here = one.sel(layer=layer)
    place = here["point"].transpose("place", "axis").values
    across, up, towards = view
    tokens = [visible(str(token)) for token in here["token"].values.tolist()]
    positions = here["position"].values.tolist()
    fronts = (place[:, towards] >= 0).tolist()
    return {
        "x": place[:, across].tolist(),
        "y": place[:, up].tolist(),
        "text": [markup(shorten(token, 10)) for token in tokens],
        "hovertext": [
            f"layer {layer_name(layer)}<br>{markup(token)} at {position}<br>{length:.0%} of its direction"
            " is shown"
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


def controls(one: xr.Dataset, start: int, look: Theme) -> dict[str, Any]:
    """Play, pause, and a slider whose steps say how much of the directions is shown."""
    layers = one["layer"].values.tolist()
    captured = one["captured"].isel(place=0).values.tolist()
    steps = [
        {
            "label": f"{layer_name(layer)} · {share:.0%}",
            "method": "animate",
            "args": [[str(layer)], _move(0)],
        }
        for layer, share in zip(layers, captured, strict=True)
    ]
    buttons = [
        {"label": "Play", "method": "animate", "args": [None, _move(REST) | {"fromcurrent": True}]},
        {"label": "Pause", "method": "animate", "args": [[None], _move(0)]},
    ]
    plain = {"bgcolor": look.paper, "bordercolor": look.muted, "font": {"color": look.ink}}
    return {
        "sliders": [
            {
                "active": layers.index(start),
                "steps": steps,
                "x": 0.14,
                "len": 0.86,
                "y": 0.0,
                "yanchor": "bottom",
                "pad": {"b": 14},
                "currentvalue": {"prefix": "layer · squared length in three directions: "},
                "transition": {"duration": TURN},
                **plain,
            }
        ],
        "updatemenus": [
            {
                "type": "buttons",
                "direction": "right",
                "buttons": buttons,
                "showactive": False,
                "x": 0.0,
                "xanchor": "left",
                "y": 0.0,
                "yanchor": "bottom",
                "pad": {"b": 30},
                **plain,
            }
        ],
    }


def _move(rest: int) -> dict[str, Any]:
    frame = {"duration": max(rest, TURN), "redraw": False}
    return {"mode": "immediate", "frame": frame, "transition": {"duration": TURN}}

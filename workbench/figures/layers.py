"""The layer axis: panels side by side, the layer upward in all of them, so that a row is a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from workbench.errors import ResultError
from workbench.figures.axes import layer_name, layer_ticks
from workbench.figures.panels import Heat, Lines, Panel, Words
from workbench.figures.place import Place, column_width, suffix
from workbench.figures.theme import Theme
from workbench.figures.tokens import markup
from workbench.figures.window import rows

__all__ = ["layer_marks", "layer_panels"]

_MARGIN = {"l": 48, "r": 10, "t": 66, "b": 96}
_ROW = 8, 26  # pixels, least and most
_TEXT = 14  # pixels of a row that can hold text
_HEIGHT = 700  # pixels for all rows, where they fit
_LETTER = 5.6  # pixels of a letter in a legend
_CONTROL = 10  # letters that a legend adds to a control's name
_GAP = 14  # pixels between panels


def layer_panels(
    groups: Mapping[str, Sequence[Panel]],
    theme: Theme,
    *,
    layer: int | None = None,
    position: int | None = None,
) -> go.Figure:
    """Draw panels side by side on one layer axis, the embedding at the bottom.

    A point's customdata is "layer", or "layer position" where it has one, which is what a click
    needs. Where rows are too low for text, only every n-th row and that of `layer` have theirs.

    Args:
        groups: panels by what brought them (an instrument's title), which is written above its
            panels where there are several.
        layer, position: the selection to mark, if any.

    Raises:
        ResultError: there are no panels.
    """
    panels = [panel for group in groups.values() for panel in group]
    if not panels:
        raise ResultError("no panels to draw: expected at least one")
    layers = _layers(panels)
    height = _height(len(layers))
    written = rows(layers, layers[-1] if layer is None else layer, max(2, height // _TEXT))
    places = _places(panels, theme)
    total = places[-1].end
    layout: dict[str, Any] = theme.layout(
        margin=_MARGIN,
        width=total + _MARGIN["l"] + _MARGIN["r"],
        height=height + _MARGIN["t"] + _MARGIN["b"],
        barmode="relative",
        hovermode="closest",
        yaxis=_layer_axis(layers, height, theme),
        shapes=[] if layer is None else layer_marks(groups, theme, layer, position),
        annotations=_headings(groups, places, theme) if len(groups) > 1 else [],
    )
    traces: list[Any] = []
    for panel, place in zip(panels, places, strict=True):
        layout |= place.layout(panel)
        traces += place.traces(panel, written)
    return go.Figure(traces, layout)


def layer_marks(
    groups: Mapping[str, Sequence[Panel]], theme: Theme, layer: int, position: int | None = None
) -> list[dict[str, Any]]:
    """The shapes that mark a selection in `layer_panels` of the same groups.

    A frame around the layer's row across all panels, and one around the column of `position` in
    every panel that has positions.
    """
    across = {"xref": "paper", "x0": 0, "x1": 1, "y0": layer - 0.5, "y1": layer + 0.5}
    found: list[dict[str, Any]] = [{"type": "rect", "line": _pen(theme, 2)} | across]
    for place, panel in enumerate(panel for group in groups.values() for panel in group):
        if not isinstance(panel, Heat) or panel.values.dims[1] != "position":
            continue
        positions = panel.values["position"].values.tolist()
        if position in positions:
            column = positions.index(position)
            ends = {"x0": column - 0.5, "x1": column + 0.5, "yref": "y domain", "y0": 0, "y1": 1}
            found.append(
                {"type": "rect", "xref": f"x{suffix(place)}", "line": _pen(theme, 1)} | ends
            )
    return found


def _pen(theme: Theme, width: int) -> dict[str, Any]:
    return {"color": theme.accent, "width": width}


def _places(panels: Sequence[Panel], theme: Theme) -> list[Place]:
    ends, end = [], -_GAP
    for panel in panels:
        end += _GAP + _width(panel)
        ends.append(end)
    return [
        Place(number, ends[number] - _width(panel), ends[number], end, theme)
        for number, panel in enumerate(panels)
    ]


def _headings(
    groups: Mapping[str, Sequence[Panel]], places: Sequence[Place], theme: Theme
) -> list[dict[str, Any]]:
    """The title of each group above its first panel."""
    found, first = [], 0
    for title, group in groups.items():
        if group:
            found.append(_heading(title, places[first], theme))
        first += len(group)
    return found


def _heading(title: str, place: Place, theme: Theme) -> dict[str, Any]:
    return {
        "text": f"<b>{markup(title)}</b>",
        "x": place.domain[0],
        "y": 1,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 42,
        "showarrow": False,
        "font": {"color": theme.ink, "size": 13},
    }


def _arrays(panel: Panel) -> list[xr.DataArray]:
    return (
        [it.values for it in panel.lines.values()] if isinstance(panel, Lines) else [panel.values]
    )


def _layers(panels: Sequence[Panel]) -> list[int]:
    found = {
        layer for p in panels for array in _arrays(p) for layer in array["layer"].values.tolist()
    }
    if not found:
        raise ResultError("no layers in these panels: expected at least one")
    return sorted(found)


def _height(count: int) -> int:
    least, most = _ROW
    return max(200, min(count * most, max(_HEIGHT, count * least)))


def _width(panel: Panel) -> int:
    if isinstance(panel, Words):
        return max(90, column_width(panel) * panel.values.shape[1])
    if isinstance(panel, Lines):
        longest = max(map(len, panel.lines))
        return max(150, int(_LETTER * (longest + _CONTROL * _controlled(panel))) + 46)
    if isinstance(panel, Heat):
        return int(min(max(110, 12 * panel.values.shape[1]), 240))
    return 150


def _controlled(panel: Lines) -> bool:
    return any(line.control for line in panel.lines.values())


def _layer_axis(layers: Sequence[int], height: int, theme: Theme) -> dict[str, Any]:
    most = max(3, height // _TEXT)
    if len(layers) <= most:
        ticks = {"tickvals": list(layers), "ticktext": [layer_name(layer) for layer in layers]}
    else:
        ticks = layer_ticks(layers, most)
    return theme.axis(
        "layer",
        range=[layers[0] - 0.5, layers[-1] + 0.5],
        showspikes=True,
        spikemode="across",
        spikethickness=1,
        spikecolor=theme.muted,
        spikedash="dot",
        **ticks,
    )

"""The figure of a patching result: heat maps side by side on one layer axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from probes.patching.headings import lines
from probes.patching.maps import Map, maps
from probes.patching.reading import of_prompt
from probes.tracing.headings import VALUES
from probes.tracing.prompt_figure import lines_above
from workbench.figures import Theme, box, layer_ticks, markup, shorten, themed
from workbench.figures.reading import chosen
from workbench.figures.scale import Scale, colour_bar
from workbench.figures.theme import MONOSPACE

__all__ = ["figure", "scale_of"]

COLUMN = 13, 34  # pixels of a column, least and most
WIDTH = 640  # pixels of all heat maps, where they fit
ROW = 12, 30  # pixels of a layer
HEIGHT = 480  # pixels of all layers, where they fit
GAP = 24  # pixels between heat maps
BAR = 88  # pixels for a colour bar
LINE = 18  # pixels of a line of the heading
LEAST = 700  # pixels that the heading needs
LETTER = 13  # pixels of a slanted line of text
LETTERS = 14
UPRIGHT = 3  # letters from which on names are slanted
MOST_TICKS = 40
MARGIN = {"l": 56, "r": 16, "b": 28}
TITLE = 48  # pixels above the maps for their titles
SLANTED = 6  # pixels that a letter of a column's name adds to them


@dataclass(frozen=True)
class _Placed:
    """A map with its share of the width, in pixels, and its scale."""

    map: Map
    start: int
    column: int
    scale: Scale
    has_bar: bool

    @property
    def end(self) -> int:
        return self.start + self.column * len(self.map.columns)


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    value: str = "effect",
) -> go.Figure:
    """One prompt's heat maps, or the means over all prompts where none is named.

    Sites that are patched as a whole stand first, by token (of several prompts by role; together, by
    site), with one scale; then heads, with theirs: at the selected position, else at the last token.
    A hover tells the 95% interval over groups of prompts.

    Args:
        data: a result's dataset.
        theme: "light" or "dark".
        prompt: id of the prompt; all where None.
        selected: the (layer, position) of one prompt to show and mark.
        value: effect, normalised or score.

    Raises:
        ResultError: the result has no such prompt, position or value.
    """
    look, name = themed(theme), chosen("value", value, np.array(list(VALUES)))
    position = None if selected is None else selected[1]
    found = maps(data, name, prompt, position)
    unit = str(data[name if name in data else f"head_{name}"].attrs["unit"])
    placed = _placed(found, VALUES[name], unit)
    layers = data["layer"].values.tolist()
    one = prompt is not None or selected is not None
    above = lines(data, of_prompt(data, prompt) if one else data)
    rows = min(max(HEIGHT // len(layers), ROW[0]), ROW[1]) * len(layers)
    total = placed[-1].end + BAR
    names = _names_height(found)
    top = names + 12 + LINE * len(above)
    layout: dict[str, Any] = look.layout(
        margin=MARGIN | {"t": top, "r": MARGIN["r"] + max(0, LEAST - total)},
        width=max(total, LEAST) + MARGIN["l"] + MARGIN["r"],
        height=rows + top + MARGIN["b"],
        yaxis=look.axis(
            "layer",
            range=[layers[0] - 0.5, layers[-1] + 0.5],
            **layer_ticks(layers, max(3, rows // 14)),
        ),
        annotations=lines_above(above, look, names),
        shapes=[],
    )
    traces = []
    for number, part in enumerate(placed):
        suffix = "" if number == 0 else str(number + 1)
        layout[f"xaxis{suffix}"] = _axis(part, total, look)
        traces.append(_heat(part, layers, total, suffix, look))
        if selected is not None and selected[1] in part.map.positions:
            column = list(part.map.positions).index(selected[1])
            marked = box([column], [selected[0]], look, width=2)
            layout["shapes"].append(marked | {"xref": f"x{suffix}", "yref": "y"})
    return go.Figure(traces, layout)


def scale_of(values: Any, title: str, unit: str) -> Scale:
    """Symmetric about 0, up to the largest of these values."""
    cells = np.concatenate([np.ravel(np.asarray(one, dtype=np.float64)) for one in values])
    end = float(np.abs(cells[np.isfinite(cells)]).max(initial=0)) or 1.0
    return Scale(title, unit, "signed", -end, end)


def _placed(found: Sequence[Map], title: str, unit: str) -> list[_Placed]:
    """Maps side by side, with room for a colour bar behind the last of each kind."""
    count = sum(len(one.columns) for one in found)
    column = min(max(WIDTH // count, COLUMN[0]), COLUMN[1])
    placed: list[_Placed] = []
    start = 0
    for number, one in enumerate(found):
        alike = [other for other in found if other.by_head == one.by_head]
        last = number + 1 == len(found) or found[number + 1].by_head != one.by_head
        scale = scale_of([other.cells.value for other in alike], title, unit)
        placed.append(_Placed(one, start, column, scale, last))
        start = placed[-1].end + (BAR + GAP if last else GAP)
    return placed


def _axis(part: _Placed, total: int, look: Theme) -> dict[str, Any]:
    names = part.map.columns
    step = max(1, -(-len(names) // MOST_TICKS), -(-LETTER // part.column))
    shown = list(range(0, len(names), step))
    upright = all(len(name) < UPRIGHT for name in names)
    return look.axis(
        markup(part.map.title),
        domain=[part.start / total, part.end / total],
        side="top",
        tickvals=shown,
        ticktext=[markup(shorten(names[i], LETTERS)) for i in shown],
        range=[-0.5, len(names) - 0.5],
        tickangle=0 if upright else -60,
        tickfont={"family": MONOSPACE, "size": 11},
    )


def _heat(part: _Placed, layers: list[int], total: int, suffix: str, look: Theme) -> go.Heatmap:
    positions = part.map.positions
    ends = [f" {position}" for position in positions] or [""] * len(part.map.columns)
    bar = colour_bar(part.scale, look) | {"x": part.end / total, "xanchor": "left", "xpad": 6}
    return go.Heatmap(
        z=part.map.cells.value.astype(np.float32),
        x=list(range(len(part.map.columns))),
        y=layers,
        zmin=part.scale.low,
        zmax=part.scale.high,
        colorscale=part.scale.colours(look),
        colorbar=bar,
        showscale=part.has_bar,
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertext=_hover(part, layers),
        hovertemplate="%{hovertext}<extra></extra>",
        customdata=[[f"{layer}{end}" for end in ends] for layer in layers],
        xaxis=f"x{suffix}",
        yaxis="y",
    )


def _hover(part: _Placed, layers: list[int]) -> list[list[str]]:
    cells, what = part.map.cells, markup(part.scale.title)
    kind = "head " if part.map.by_head else ""
    grids = (cells.value.tolist(), cells.half.tolist(), cells.n.tolist())
    return [
        [
            f"{markup(part.map.title)}<br>layer {layer}, {kind}{markup(name)}<br>{what} {_said(*cell)}"
            for name, *cell in zip(part.map.columns, *row, strict=True)
        ]
        for layer, *row in zip(layers, *grids, strict=True)
    ]


def _said(value: float, half: float, n: int) -> str:
    if np.isnan(half):
        return f"{value:+.3g}"
    return f"{value:+.3g} ({value - half:+.3g} to {value + half:+.3g}, n = {n})"


def _names_height(found: Sequence[Map]) -> int:
    """Pixels above the maps for their titles and the names of their columns."""
    longest = max(len(name) for one in found for name in one.columns)
    return TITLE + (0 if longest < UPRIGHT else SLANTED * min(longest, LETTERS))

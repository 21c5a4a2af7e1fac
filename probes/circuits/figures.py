"""Attribution patching of one prompt: approximate and exact heat maps side by side, on one colour scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from probes.circuits.reading import SITES, heading, of_prompt
from workbench.figures import Theme, box, layer_ticks, markup, shorten, themed, visible
from workbench.figures.scale import Scale, colour_bar
from workbench.figures.theme import MONOSPACE

__all__ = ["figure", "scale_of"]

CELL = 5, 34  # pixels of a token's column, least and most
WIDTH = 900  # pixels of all columns, where they fit
ROW = 7, 22  # pixels of a layer
HEIGHT = 420  # pixels of one heat map, where it fits
GAP = 36
ABOVE = 86  # pixels of the heading
TICKS = 92  # pixels of token texts
TITLE = 26
LETTERS = 11


@dataclass(frozen=True)
class _Map:
    """One heat map: its values with dims (layer, position or head), and its title."""

    title: str
    values: xr.DataArray


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
    scale = scale_of([each.values for row in rows for each in row], one)
    return _drawn(rows, scale, one, selected, look)


def scale_of(maps: list[xr.DataArray], one: xr.Dataset) -> Scale:
    """Symmetric about 0, up to the largest effect of any map."""
    end = max((float(np.nanmax(np.abs(each.values))) for each in maps if each.size), default=0.0)
    return Scale("effect", str(one["clean"].attrs["unit"]), "signed", -(end or 1.0), end or 1.0)


def _rows(one: xr.Dataset, selected: tuple[int, int] | None) -> list[list[_Map]]:
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


def _pair(one: xr.Dataset, prefix: str, name: str, across: str) -> list[_Map]:
    """The approximate map of a site, and the exact one where it was measured."""
    found = [_Map(f"{name}: approximate", one[f"{prefix}effect"].transpose("layer", across))]
    if f"exact_{prefix}effect" in one:
        rho = float(np.ravel(one[f"{prefix}rank_correlation"].values)[0])
        said = "too few cells to rank" if np.isnan(rho) else f"rank correlation {rho:.2f}"
        exact = one[f"exact_{prefix}effect"].transpose("layer", across)
        found.append(_Map(f"{name}: exact ({said})", exact))
    return found


def _drawn(
    rows: list[list[_Map]],
    scale: Scale,
    one: xr.Dataset,
    selected: tuple[int, int] | None,
    look: Theme,
) -> go.Figure:
    columns = max(map(len, rows))
    most = max(each.values.shape[1] for row in rows for each in row)
    cell = min(max(WIDTH // (most * columns), CELL[0]), CELL[1])
    wide = max(cell * most, 250)
    layers = one["layer"].values.tolist()
    high = min(max(HEIGHT // len(layers), ROW[0]), ROW[1]) * len(layers)
    step = high + TICKS + TITLE
    total = step * len(rows)
    layout = look.layout(
        width=columns * (wide + GAP) + 160,
        height=total + ABOVE + 10,
        margin={"l": 54, "r": 106, "t": ABOVE, "b": 10},
        annotations=_heading(
            one, look, exact=any(len(row) > 1 and "exact" in row[1].title for row in rows)
        ),
        shapes=[],
    )
    span = columns * wide + (columns - 1) * GAP
    traces: list[go.Heatmap] = []
    for r, row in enumerate(rows):
        for c, each in enumerate(row):
            suffix = "" if not traces else str(len(traces) + 1)
            x = [c * (wide + GAP) / span, (c * (wide + GAP) + wide) / span]
            y = [1 - (r * step + TITLE + high) / total, 1 - (r * step + TITLE) / total]
            layout[f"xaxis{suffix}"] = look.axis(
                domain=x, anchor=f"y{suffix}", **_across(each, one, cell)
            )
            layout[f"yaxis{suffix}"] = _upward(layers, y, suffix, c, high, look)
            layout["annotations"].append(_title(each.title, x[0], y[1], look))
            layout["shapes"] += _mark(each, selected, suffix, look)
            traces.append(_heat(each, scale, one, suffix, not traces, look))
    return go.Figure(traces, layout)


def _upward(
    layers: list[int], domain: list[float], suffix: str, column: int, high: int, look: Theme
) -> dict[str, Any]:
    ends = [layers[0] - 0.5, layers[-1] + 0.5]
    ticks = layer_ticks(layers, max(3, high // 14))
    title = "layer" if column == 0 else ""
    return look.axis(title, domain=domain, anchor=f"x{suffix}", range=ends, **ticks)


def _across(each: _Map, one: xr.Dataset, cell: int) -> dict[str, Any]:
    """Ticks of the tokens with their positions, at every n-th where they are many; or of the heads."""
    count, dim = each.values.shape[1], str(each.values.dims[1])
    ends = {"range": [-0.5, count - 0.5]}
    if dim == "head":
        return ends | {"tickvals": list(range(count)), "title": "head"}
    shown = range(0, count, max(1, -(-14 // cell)))
    tokens = one["token"].values
    texts = [
        f"{markup(shorten(visible(str(tokens[i])), LETTERS))} {one['position'].values[i]}"
        for i in shown
    ]
    font = {"family": MONOSPACE, "size": 11}
    return ends | {"tickvals": list(shown), "ticktext": texts, "tickangle": -60, "tickfont": font}


def _heat(
    each: _Map, scale: Scale, one: xr.Dataset, suffix: str, first: bool, look: Theme
) -> go.Heatmap:
    values, dim = each.values, str(each.values.dims[1])
    layers, others = (values[name].values.tolist() for name in values.dims)
    texts = [f"head {i}" for i in others]
    if dim == "position":
        tokens = one["token"].values
        texts = [f"{p} {markup(visible(str(t)))}" for p, t in zip(others, tokens, strict=True)]
    return go.Heatmap(
        z=values.values.astype(np.float32),
        x=list(range(len(others))),
        y=layers,
        zmin=scale.low,
        zmax=scale.high,
        colorscale=scale.colours(look),
        showscale=first,
        colorbar=colour_bar(scale, look),
        xgap=1,
        ygap=1,
        hoverongaps=False,
        xaxis=f"x{suffix}",
        yaxis=f"y{suffix}",
        customdata=[[_where(layer, at, dim) for at in others] for layer in layers],
        text=[texts] * len(layers),
        hovertemplate="layer %{y}, %{text}<br>%{z:.3g} "
        + f"{scale.unit}<extra>{markup(each.title)}</extra>",
    )


def _where(layer: int, at: int, dim: str) -> str:
    """What a click on the cell selects."""
    return f"{layer} {at}" if dim == "position" else f"{layer}"


def _mark(
    each: _Map, selected: tuple[int, int] | None, suffix: str, look: Theme
) -> list[dict[str, Any]]:
    if selected is None or each.values.dims[1] != "position":
        return []
    positions = each.values["position"].values.tolist()
    if selected[1] not in positions or selected[0] not in each.values["layer"].values:
        return []
    frame = box([positions.index(selected[1])], [selected[0]], look, width=2)
    return [frame | {"xref": f"x{suffix}", "yref": f"y{suffix}"}]


def _title(text: str, x: float, y: float, look: Theme) -> dict[str, Any]:
    return _note(f"<b>{markup(text)}</b>", x, y, look) | {
        "yshift": 3,
        "font": {"color": look.ink, "size": 12},
    }


def _heading(one: xr.Dataset, look: Theme, exact: bool) -> list[dict[str, Any]]:
    text, said = heading(one)
    lines = [f"<b>{markup(shorten(visible_line(text), 110))}</b>", markup(said)]
    lines.append(
        "approximate: gradient times difference, nothing is patched"
        + ("; exact: every cell patched; Spearman's rank correlation over a site's cells" * exact)
    )
    return [_note("<br>".join(lines), 0, 1, look) | {"yshift": 16, "align": "left"}]


def visible_line(text: str) -> str:
    """A text on one line."""
    return text.replace("\n", "⏎")


def _note(text: str, x: float, y: float, look: Theme) -> dict[str, Any]:
    place = {
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
    }
    return {"text": text, "showarrow": False, "font": {"color": look.ink, "size": 12}} | place

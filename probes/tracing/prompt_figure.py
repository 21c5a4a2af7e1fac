"""One prompt's trace: three heat maps on one layer axis, tokens along each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from probes.causal.roles import ROLES
from probes.tracing.grid import WINDOWED
from probes.tracing.headings import VALUES, prompt_lines
from probes.tracing.reading import SITES, half_width, of_prompt
from workbench.figures import Theme, box, layer_ticks, markup, shorten, themed, visible
from workbench.figures.reading import chosen
from workbench.figures.scale import Scale, colour_bar
from workbench.figures.theme import MONOSPACE

__all__ = ["figure_of_prompt", "lines_above", "scale_of"]

COLUMN = 5, 40  # pixels of a token, least and most
WIDTH = 840  # pixels of all heat maps, where they fit
ROW = 8, 26  # pixels of a layer
HEIGHT = 560  # pixels of all layers, where they fit
GAP = 30  # pixels between heat maps
LINE = 18  # pixels of a line of the heading
LETTERS = 12
MOST_TICKS = 36
MOST_TOLD = 3000  # cells of which a hover says everything; of more, what the axes and colours say
NEGATIVE = 0.005  # of the largest: below it a negative effect is rounding, not a sign


def figure_of_prompt(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    value: str = "effect",
) -> go.Figure:
    """State, MLP window and attention window, whichever were measured: layers upward, tokens along.

    A cell's customdata is "layer position", which is what a click needs. Subject tokens are bold,
    with a bar below them.

    Raises:
        ResultError: the result has no such prompt or value.
    """
    look, name = themed(theme), chosen("value", value, np.array(list(VALUES)))
    one = of_prompt(data, prompt)
    values = _values(one, name)
    scale = scale_of(values, VALUES[name], str(one[name].attrs["unit"]))
    sites, count = one["site"].values.tolist(), one.sizes["position"]
    column = min(max(WIDTH // (count * len(sites)), COLUMN[0]), COLUMN[1])
    wide = column * count
    total = wide * len(sites) + GAP * (len(sites) - 1)
    layers = one["layer"].values.tolist()
    rows = min(max(HEIGHT // len(layers), ROW[0]), ROW[1]) * len(layers)
    lines = [*_which(data, one), *prompt_lines(one)]
    told = one["effect"].size <= MOST_TOLD
    layout: dict[str, Any] = look.layout(
        margin={"l": 56, "r": 96, "t": 140 + LINE * len(lines), "b": 32},
        width=max(total, 680) + 152,
        height=rows + 172 + LINE * len(lines),
        yaxis=look.axis(
            "layer",
            range=[layers[0] - 0.5, layers[-1] + 0.5],
            **layer_ticks(layers, max(3, rows // 14)),
        ),
        annotations=[*lines_above(lines, look, 126), *_below(one, look)],
        shapes=[],
    )
    traces = []
    for n, site in enumerate(sites):
        start = n * (wide + GAP)
        axis = f"x{n + 1 if n else ''}"
        layout[f"xaxis{n + 1 if n else ''}"] = look.axis(
            _title(site),
            domain=[start / total, (start + wide) / total],
            side="top",
            **_tokens(one, column),
        )
        cells = values.sel(site=site)
        heat = _heat(one, cells, site, scale, look, told)
        heat.update(xaxis=axis, yaxis="y", showscale=n == len(sites) - 1)
        traces.append(heat)
        layout["shapes"] += [{"xref": axis} | shape for shape in _marks(one, selected, look)]
    return go.Figure(traces, layout)


def lines_above(lines: list[str], look: Theme, shift: int) -> list[dict[str, Any]]:
    """A heading of several lines, the first of them bold, whose last is `shift` pixels above the plot."""
    first, *rest = map(markup, lines)
    return [
        {
            "text": "<br>".join([f"<b>{first}</b>", *rest]),
            "font": {"color": look.ink, "size": 12},
            "x": 0,
            "y": 1,
            "xref": "paper",
            "yref": "paper",
            "xanchor": "left",
            "yanchor": "bottom",
            "yshift": shift,
            "align": "left",
            "showarrow": False,
        }
    ]


def scale_of(values: xr.DataArray | NDArray[Any], title: str, unit: str) -> Scale:
    """From 0 to the largest value; symmetric about 0 where there are values of both signs."""
    cells = np.asarray(values, dtype=np.float64)
    cells = cells[np.isfinite(cells)]
    end = float(np.abs(cells).max(initial=0)) or 1.0
    if cells.min(initial=0) < -NEGATIVE * end:
        return Scale(title, unit, "signed", -end, end)
    return Scale(title, unit, "blue", 0.0, end)


def _which(data: xr.Dataset, one: xr.Dataset) -> list[str]:
    """The prompt's name, where the result has several."""
    count = len(np.unique(data["prompt"].values))
    return [f"Prompt {one['prompt'].values[0]}, one of {count}"] if count > 1 else []


def _values(one: xr.Dataset, name: str) -> xr.DataArray:
    values = one[name].mean("sample") if name == "score" else one[name]
    return values.transpose("site", "layer", "position")


def _heat(
    one: xr.Dataset, cells: xr.DataArray, site: str, scale: Scale, look: Theme, told: bool
) -> go.Heatmap:
    layers, positions = (cells[dim].values.tolist() for dim in ("layer", "position"))
    said = (
        {
            "hovertext": _hover(one.sel(site=site)),
            "hovertemplate": "%{hovertext}<extra>" + SITES[site] + "</extra>",
        }
        if told
        else {
            "hovertemplate": "layer and position %{customdata}: %{z:.3g}<extra>"
            + SITES[site]
            + "</extra>"
        }
    )
    return go.Heatmap(
        z=cells.values.astype(np.float32),
        x=list(range(len(positions))),
        y=layers,
        zmin=scale.low,
        zmax=scale.high,
        colorscale=scale.colours(look),
        colorbar=colour_bar(scale, look),
        xgap=1,
        ygap=1,
        hoverongaps=False,
        customdata=[[f"{layer} {position}" for position in positions] for layer in layers],
        **said,
    )


def _hover(one: xr.Dataset) -> list[list[str]]:
    """Of each cell of a site: where, the effect with its interval, the score, the share."""
    grids = (
        one["effect"],
        half_width(one),
        one["score"].mean("sample"),
        one["normalised"],
    )
    plain = [grid.transpose("layer", "position").values.tolist() for grid in grids]
    tokens = [markup(visible(str(token))) for token in one["token"].values]
    positions = one["position"].values.tolist()
    return [
        [
            f"layer {layer}, {positions[p]} {tokens[p]}<br>{_said(*cell)}"
            for p, cell in enumerate(zip(*row, strict=True))
        ]
        for layer, *row in zip(one["layer"].values.tolist(), *plain, strict=True)
    ]


def _said(effect: float, half: float, score: float, share: float) -> str:
    ends = "" if np.isnan(half) else f" ({effect - half:+.3g} to {effect + half:+.3g})"
    scaled = "" if np.isnan(share) else f", normalised {share:.3g}"
    return f"effect {effect:+.3g}{ends}<br>score {score:.3g}{scaled}"


def _title(site: str) -> str:
    return f"{SITES[site]} window" if site in WINDOWED else SITES[site]


def _tokens(one: xr.Dataset, column: int) -> dict[str, Any]:
    """Ticks with position and token, subject tokens bold; at every n-th where they are many."""
    count = one.sizes["position"]
    step = max(1, -(-14 // column), -(-count // MOST_TICKS))
    subject = _subject(one)
    texts = []
    for i in range(0, count, step):
        position, token = int(one["position"][i]), str(one["token"].values[i])
        text = f"{markup(shorten(visible(token), LETTERS))} {position}"
        texts.append(f"<b>{text}</b>" if i in subject else text)
    return {
        "tickvals": list(range(0, count, step)),
        "ticktext": texts,
        "range": [-0.5, count - 0.5],
        "tickangle": -60,
        "tickfont": {"family": MONOSPACE, "size": 11},
    }


def _subject(one: xr.Dataset) -> list[int]:
    """Columns of the subject's tokens."""
    names = ("first_subject", "middle_subject", "last_subject")
    inside = [ROLES.index(name) for name in names]
    found: list[int] = np.flatnonzero(np.isin(one["role"].values, inside)).tolist()
    return found


def _below(one: xr.Dataset, look: Theme) -> list[dict[str, Any]]:
    """The word below the first of the bars that mark the subject."""
    if not (subject := _subject(one)):
        return []
    place = {"x": (subject[0] + subject[-1]) / 2, "y": 0, "xref": "x", "yref": "paper"}
    word = {"text": "subject", "showarrow": False, "yanchor": "top", "yshift": -9}
    return [place | word | {"font": {"color": look.muted, "size": 11}}]


def _marks(one: xr.Dataset, selected: tuple[int, int] | None, look: Theme) -> list[dict[str, Any]]:
    """A bar below the subject's columns, and a frame around the selected cell."""
    found = []
    if subject := _subject(one):
        ends = {"x0": subject[0] - 0.45, "x1": subject[-1] + 0.45}
        bar = {"type": "rect", "yref": "paper", "y0": -8, "y1": -4, "ysizemode": "pixel"}
        found.append(bar | ends | {"yanchor": 0, "line": {"width": 0}, "fillcolor": look.series[1]})
    positions = one["position"].values.tolist()
    if selected is not None and selected[1] in positions:
        column = positions.index(selected[1])
        found.append({"yref": "y"} | box([column], [selected[0]], look, width=2))
    return found

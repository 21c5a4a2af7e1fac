"""Edits on the layer axis: what each does to the prompt, its paraphrases and its neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures import Theme, layer_ticks, markup, shorten, themed
from workbench.figures.generic import at_place
from workbench.figures.panels import Line, Lines
from workbench.figures.reading import chosen
from workbench.report.intervals import mean_interval

__all__ = ["NAMES", "facts", "figure", "panels"]

NAMES = {
    "imprint_shift": "imprint and shift",
    "gradient": "gradient step",
    "random": "random",
}
SHOWN = {"prompt": "target", "paraphrase": "target", "neighbour": "own"}
TITLES = {
    "prompt": "log p(target), nat",
    "paraphrase": "paraphrases, nat",
    "neighbour": "neighbours, nat",
}
WHOLE = {
    "prompt": "log p(target) on the prompt",
    "paraphrase": "log p(target) on paraphrases",
    "neighbour": "log p(own answer) on neighbours",
}
DASHES = ("solid", "dash", "dot", "longdash")
SYMBOLS = ("circle", "square", "x", "diamond")
GAP = 0.09


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    eta: float | None = None,
) -> go.Figure:
    """Before and after by layer, for each kind of text: over all prompts, or of one.

    Raises:
        ResultError: the result has no such prompt or eta.
    """
    if prompt is not None:
        data = data.isel(place=[_index(data, prompt)])
    look, eta = themed(theme), chosen("eta", eta, data["eta"].values)
    shown = _panels(data, eta)
    traces = [
        trace
        for number, panel in enumerate(shown)
        for style, (name, line) in enumerate(panel.lines.items())
        for trace in _traces(name, line, style, number, look)
    ]
    figure = go.Figure(traces, _layout(shown, look, _heading(data, eta, prompt)))
    if selected is not None:
        mark = {"color": look.accent, "width": 1}
        figure.add_vline(x=selected[0], line=mark, row="all", col="all")
    return figure


def _heading(data: xr.Dataset, eta: float, prompt: str | int | None) -> str:
    n = data.sizes["place"]
    over = f"mean over {n} prompts with Student's 95% interval" if n > 1 else "one prompt"
    named = f" ({markup(shorten(str(prompt), 40))})" if prompt is not None else ""
    return f"Edits of one MLP map, eta {eta:g}: {over}{named}"


def _traces(name: str, line: Line, style: int, number: int, theme: Theme) -> list[go.Scatter]:
    """A line over its band, on the axes of a panel."""
    axes = {"xaxis": f"x{number + 1}", "yaxis": f"y{number + 1}"}
    colour = theme.muted if line.control else theme.series[style % len(theme.series)]
    layers = line.values["layer"].values.tolist()
    middle = go.Scatter(
        x=layers,
        y=line.values.values.tolist(),
        name=name,
        legendgroup=name,
        showlegend=number == 0,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": DASHES[style]},
        marker={"symbol": SYMBOLS[style], "size": 7},
        customdata=[str(layer) for layer in layers],
        hovertemplate=f"layer %{{x}}: %{{y:.4g}} nat<extra>{name}</extra>",
        **axes,
    )
    if line.low is None or line.high is None:
        return [middle]
    rgb = tuple(bytes.fromhex(colour[1:]))
    band = go.Scatter(
        x=[*layers, *reversed(layers)],
        y=[*line.high.values.tolist(), *reversed(line.low.values.tolist())],
        fill="toself",
        fillcolor=f"rgba{(*rgb, 0.15)}",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        legendgroup=name,
        showlegend=False,
        **axes,
    )
    return [band, middle]


def _layout(shown: list[Lines], theme: Theme, heading: str) -> dict[str, Any]:
    width = (1 + GAP) / len(shown) - GAP
    axes: dict[str, Any] = {}
    for number, panel in enumerate(shown):
        layers = next(iter(panel.lines.values())).values["layer"].values.tolist()
        ends = [number * (width + GAP), number * (width + GAP) + width]
        axes[f"xaxis{number + 1}"] = theme.axis(
            "edited layer", domain=ends, anchor=f"y{number + 1}", **layer_ticks(layers, most=13)
        )
        axes[f"yaxis{number + 1}"] = theme.axis(
            f"{WHOLE[panel.name]}, nat", anchor=f"x{number + 1}", showgrid=True
        )
    return theme.layout(
        **axes,
        width=max(620, 340 * len(shown)),
        height=400,
        margin={"l": 60, "r": 16, "t": 84, "b": 48},
        title={"text": heading, "x": 0.01, "xanchor": "left", "font": {"size": 13}},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )


def panels(data: xr.Dataset, *, prompt: str | int | None = None) -> list[Lines]:
    """The panels of one prompt, at the first eta.

    Raises:
        ResultError: the result has no such prompt.
    """
    return _panels(data.isel(place=[_index(data, prompt)]), None)


def _index(data: xr.Dataset, prompt: str | int | None) -> int:
    names = data["prompt"].values
    return int(np.flatnonzero(names == chosen("prompt", prompt, names))[0])


def _panels(data: xr.Dataset, eta: float | None) -> list[Lines]:
    data = data.sel(eta=chosen("eta", eta, data["eta"].values))
    found = []
    for kind, who in SHOWN.items():
        own = data.isel(case=np.flatnonzero(data["kind"].values == kind))
        after = own[f"{who}_logprob_after"].mean("case")
        if after.notnull().any():
            before = (
                own[f"{who}_logprob_before"]
                .mean("case")
                .broadcast_like(after.isel(edit=0, drop=True))
            )
            lines = {NAMES[m]: _line(after.sel(edit=m), m == "random") for m in NAMES}
            found.append(Lines(kind, TITLES[kind], {**lines, "before": _line(before, False)}))
    return found


def _line(values: xr.DataArray, control: bool) -> Line:
    """The mean over the prompts at each layer, with Student's interval where there are several."""
    summaries = [
        mean_interval(column[np.isfinite(column)], (-math.inf, 0.0))
        for column in values.transpose("layer", "place").values
    ]
    layer = {"layer": values["layer"]}
    middle, low, high = (
        xr.DataArray([getattr(one, part) for one in summaries], layer, attrs=values.attrs)
        for part in ("value", "low", "high")
    )
    if summaries[0].low is None:
        return Line(middle, control=control)
    return Line(middle, low, high, control)


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None
) -> list[tuple[str, str]]:
    """What each edit at this layer does to the prompt, and how many neighbours keep their top token."""
    if layer not in data["layer"].values:
        return []
    here = at_place(data, prompt).sel(layer=layer)
    several = data.sizes["eta"] > 1
    return [
        (
            NAMES[method] + (f", eta {eta:g}" if several else ""),
            _said(here.sel(eta=eta, edit=method)),
        )
        for eta in here["eta"].values.tolist()
        for method in NAMES
    ]


def _said(here: xr.Dataset) -> str:
    own = here.isel(case=0)
    before, after = (math.exp(own[f"target_logprob_{when}"]) for when in ("before", "after"))
    ranks = " → ".join(f"{int(own[f'target_rank_{when}']):,}" for when in ("before", "after"))
    said = f"p(target) {before:.3g} → {after:.3g}, rank {ranks}"
    near = here.isel(case=np.flatnonzero(here["kind"].values == "neighbour"))
    there = near["top_id_before"].values >= 0
    kept = int((near["top_id_before"] == near["top_id_after"]).values[there].sum())
    return f"{said}; {kept} of {there.sum()} neighbours kept" if there.any() else said

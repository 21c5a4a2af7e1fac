"""Figures of the experiments: curves beside the closed form, a phase diagram, a staircase."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from probes.dynamics import theory
from probes.dynamics.experiments import PhaseDiagram, Run, Simulated
from workbench.figures import Theme, themed

__all__ = ["figure"]

DASHES = ("solid", "dash", "dot", "dashdot")
NEAR = 4  # times the time run: how far the axis follows the theory
ROOM = 1.15  # so that marks at the end of the axis are whole
MARGIN = {"l": 64, "r": 24, "t": 64, "b": 52}


def figure(found: Simulated, theme: str = "light") -> go.Figure:
    """The figure of what was simulated."""
    look = themed(theme)
    if isinstance(found.of, PhaseDiagram):
        return phase(found, look)
    return run(found, look) if isinstance(found.of, Run) else staircase(found, look)


def phase(found: Simulated, look: Theme) -> go.Figure:
    """Mean cosine (mean over seeds) by depth and temperature; the theory's curve, and where runs cross.

    Runs that have not crossed when time is up are marked at the end of it.
    """
    warmth = 1 / found.betas
    heat = go.Heatmap(
        x=warmth.tolist(),
        y=found.times[1:].tolist(),
        z=found.seen["mean_cosine"][1:].mean(-1).tolist(),
        colorscale=list(look.hues["blue"]),
        zmin=0,
        zmax=1,
        colorbar={"title": {"text": "mean cosine"}, "thickness": 12},
        hovertemplate="temperature %{x:.3g}, depth %{y:.3g}: %{z:.3f}<extra></extra>",
    )
    crossed = found.crossings()
    dots = go.Scatter(
        x=np.repeat(warmth, crossed.shape[1]).tolist(),
        y=crossed.ravel().tolist(),
        mode="markers",
        name="simulated: mean cosine passes 1/2 (one a seed)",
        marker={"color": look.ink, "size": 6, "symbol": "circle-open"},
    )
    theirs, end = found.curves["crossover"], float(found.times[-1])
    curve = go.Scatter(
        x=warmth.tolist(),
        y=theirs.tolist(),
        mode="lines",
        name="theory: t*(beta) of an equiangular start of cosine 0",
        line={"color": look.accent, "width": 2},
    )
    first = np.append(crossed[crossed > 0], found.times[1]).min()
    last = np.append(theirs[theirs <= NEAR * end], end).max()
    layout = look.layout(
        title=_title(
            f"{found.of.tokens} tokens in {found.of.d} dimensions: a crossover in depth, no transition"
        ),
        xaxis=look.axis(
            "temperature 1/beta (log)", type="log", **_ticks(warmth.min(), warmth.max())
        ),
        yaxis=look.axis(
            f"depth t{_clock(found)} (log)",
            type="log",
            range=np.log10([first, ROOM * last]).tolist(),
            **_ticks(first, ROOM * last),
        ),
        legend=_legend(),
        margin=MARGIN | {"t": 112},
        height=500,
    )
    return go.Figure([heat, dots, *_uncrossed(found, crossed, look), curve], layout)


def _ticks(low: float, high: float) -> dict[str, Any]:
    """1, 2 and 5 of each decade of a logarithmic axis, written out: of themselves, 20 is a bare 2."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    every = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    values = [value for value in every if low <= value <= high]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def _uncrossed(found: Simulated, crossed: Any, look: Theme) -> list[go.Scatter]:
    """A mark at each temperature of which some runs do not cross, where there is one."""
    missing = np.isnan(crossed).sum(1)
    there = missing > 0
    if not there.any():
        return []
    end = float(found.times[-1])
    return [
        go.Scatter(
            x=(1 / found.betas[there]).tolist(),
            y=[end] * int(there.sum()),
            mode="markers",
            name=f"simulated: not yet when time is up, t = {end:g} ({missing.sum()} of {crossed.size})",
            marker={"color": look.ink, "size": 12, "symbol": "triangle-up-open"},
            customdata=[[int(some), crossed.shape[1]] for some in missing[there]],
            hovertemplate="temperature %{x:.3g}: %{customdata[0]} of %{customdata[1]} seeds"
            "<extra></extra>",
        )
    ]


def run(found: Simulated, look: Theme) -> go.Figure:
    """Mean cosine against time, a line a seed; the closed form from the same mean cosine, dashed."""
    assert isinstance(found.of, Run)
    lines = []
    for index, beta in enumerate(found.betas):
        colour = look.series[index % len(look.series)]
        cosines = found.seen["mean_cosine"][:, index]
        lines += _seeds(found, cosines, f"beta = {beta:g}", colour)
        if found.of.has_theory:
            law = theory.equiangular(
                float(cosines[0].mean()), found.times, float(beta), found.of.tokens, found.of.kernel
            )
            style = {"color": colour, "dash": "dash", "width": 3}
            lines.append(_line(found, law, f"closed form, beta = {beta:g}", style))
    layout = look.layout(
        title=_title(f"{found.of.tokens} tokens in {found.of.d} dimensions, {_kind(found.of)}"),
        xaxis=look.axis(f"time t{_clock(found)}", showgrid=True),
        yaxis=look.axis("mean cosine", showgrid=True),
        legend=_legend(),
        margin=MARGIN | {"t": 110},
        height=440,
    )
    return go.Figure(lines, layout)


def staircase(found: Simulated, look: Theme) -> go.Figure:
    """Energy, of 1 where all tokens are one, and the number of clusters, against log time."""
    lines = []
    for index, beta in enumerate(found.betas):
        for row, name in enumerate(("energy", "clusters")):
            colour = look.series[index % len(look.series)]
            values = found.seen[name][:, index]
            new = _seeds(found, values, f"beta = {beta:g}", colour, shape="hv" if row else "linear")
            for line in new:
                line.update(yaxis=f"y{row + 1}", showlegend=bool(line.showlegend and not row))
            lines += new
    layout = look.layout(
        title=_title("Metastability: clusters wait, then meet; a dash a seed"),
        xaxis=look.axis(f"time t{_clock(found)} (log)", type="log", showgrid=True, anchor="y2"),
        yaxis=look.axis("energy / its maximum", domain=[0.54, 1], showgrid=True),
        yaxis2=look.axis(
            "clusters (cosine > 0.95)", domain=[0, 0.46], showgrid=True, rangemode="tozero"
        ),
        legend=_legend(),
        margin=MARGIN | {"t": 80},
        height=520,
    )
    return go.Figure(lines, layout)


def _seeds(
    found: Simulated, values: Any, name: str, colour: str, shape: str = "linear"
) -> list[go.Scatter]:
    """A line a seed, the first of them in the legend."""
    return [
        _line(
            found,
            values[:, seed],
            name,
            {"color": colour, "width": 1.5, "dash": DASHES[seed % len(DASHES)], "shape": shape},
            legend=seed == 0,
        )
        for seed in range(values.shape[1])
    ]


def _line(
    found: Simulated, values: Any, name: str, style: dict[str, Any], legend: bool = True
) -> go.Scatter:
    return go.Scatter(
        x=found.times.tolist(),
        y=values.tolist(),
        mode="lines",
        name=name,
        line=style,
        showlegend=legend,
        hovertemplate="t = %{x:.3g}: %{y:.3g}<extra>" + name + "</extra>",
    )


def _clock(found: Simulated) -> str:
    """The unit of time, where it is not the law's own."""
    return "" if found.of.kernel == "sa" else " in units of exp(-beta)"


def _kind(of: Run) -> str:
    parts = [of.kernel, f"{of.norm}-LN", "causal" if of.causal else "full mask"]
    return ", ".join(
        parts + ([f"noise of temperature {of.temperature:g}"] if of.temperature else [])
    )


def _title(text: str) -> dict[str, Any]:
    return {
        "text": text,
        "font": {"size": 14},
        "x": 0.02,
        "xanchor": "left",
        "y": 0.98,
        "yanchor": "top",
    }


def _legend() -> dict[str, Any]:
    return {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}

"""The figure of an overlay: measured curves, the fitted theory, the untrained twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from probes.dynamics.overlay import Overlay
from workbench.figures import layer_ticks, themed

__all__ = ["figure"]

WRAP = 92  # characters of a line of the title


def figure(found: Overlay, theme: str = "light") -> go.Figure:
    """Means over prompts by layer; every measured prompt is a thin line behind."""
    look = themed(theme)
    layers = list(range(found.first, found.first + found.measured.shape[1]))
    lines = [
        go.Scatter(
            x=layers,
            y=prompt.tolist(),
            mode="lines",
            line={"color": look.series[0], "width": 0.7},
            opacity=0.25,
            showlegend=False,
            hoverinfo="skip",
        )
        for prompt in found.measured
    ]
    curves = [("measured", found.measured, "solid"), ("theory, fitted", found.fitted, "dash")]
    if found.twin is not None:
        twin = "untrained twin" if found.twins == 1 else f"mean of {found.twins} untrained twins"
        curves.append((twin, found.twin, "dot"))
    lines += [
        go.Scatter(
            x=layers,
            y=values.mean(0).tolist(),
            name=f"{name}, mean of {len(values)} prompts",
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2.5},
            hovertemplate="layer %{x}: %{y:.3f}<extra>" + name + "</extra>",
        )
        for (name, values, dash), colour in zip(curves, look.series, strict=False)
    ]
    layout = look.layout(
        title={"text": _words(found), "font": {"size": 13}, "x": 0.02, "y": 0.96, "yanchor": "top"},
        xaxis=look.axis("layer", **layer_ticks(np.asarray(layers).tolist()), showgrid=True),
        yaxis=look.axis("mean cosine", showgrid=True),
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 60, "r": 20, "t": 190, "b": 48},
        height=520,
        shapes=_held(found, look),
    )
    return go.Figure(lines, layout)


def _held(found: Overlay, look: Any) -> list[dict[str, Any]]:
    """Shade the layers that the fit did not see."""
    if found.held != "late":
        return []
    last = found.first + found.measured.shape[1] - 1
    ends = {"x0": found.cut + 0.5, "x1": last + 0.5, "y0": 0, "y1": 1}
    return [
        {"type": "rect", "yref": "paper", "fillcolor": look.rule, "layer": "below", "line_width": 0}
        | ends
    ]


def _words(found: Overlay) -> str:
    errors = ", ".join(f"{name} {error}" for name, error in found.errors.items())
    what = "prompts" if found.held == "prompts" else f"layers after {found.cut} (shaded)"
    parts = [
        *_wrapped(found.verdict[0].upper() + found.verdict[1:]),
        f"beta {found.beta}, dt {found.dt} a layer (95% over prompts)",
        *_wrapped(f"RMS error on held-out {what}: {errors}"),
    ]
    return "<br>".join(parts)


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, WRAP)

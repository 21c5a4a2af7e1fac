"""Interchanges on the layer axis: the subspace and the whole state, and in grey the controls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from workbench.figures import layer_panels, themed
from workbench.figures.panels import Line, Lines

__all__ = ["NAMES", "facts", "figure", "panels"]

NAMES = {
    "subspace": "subspace",
    "whole": "whole state",
    "random": "random subspace",
    "arbitrary": "arbitrary targets",
    "twin": "random weights",
    "unchanged": "no change",
    "twin_unchanged": "random weights, no change",
}
CLAIMS = ("subspace", "whole")
DRAWN = ("subspace", "whole", "random", "arbitrary", "twin", "unchanged")
SHARES = {"accuracy": "accuracy, share of pairs", "top": "top answer, share of pairs"}
ROOM = 160  # pixels more than the layer axis takes
SAID = (
    "95% intervals over groups. With random weights either answer is as likely: about half of the pairs "
    "come out right by chance, with no change too."
)


def figure(
    data: xr.Dataset, *, theme: str = "light", selected: tuple[int, int] | None = None
) -> go.Figure:
    """The panels side by side, the layer upward."""
    layer, position = (None, None) if selected is None else selected
    shown = layer_panels({"": panels(data)}, themed(theme), layer=layer, position=position)
    said = (
        f"Interchange {described(data)}<br><sub>{SAID if 'twin' in data['control'] else ''}</sub>"
    )
    return shown.update_layout(
        title={
            "text": said,
            "x": 0.01,
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 12},
            "font": {"size": 13},
        },
        margin={"t": 110, "b": 150},
        height=shown.layout.height + ROOM,
    )


def described(data: xr.Dataset) -> str:
    """What was interchanged, and on how many pairs."""
    settings = json.loads(data.attrs["provenance"])["settings"]
    counts = sorted(set(data["dimensions"].values.tolist()))
    k = "-".join(str(count) for count in (counts if len(counts) < 2 else (counts[0], counts[-1])))
    return (
        f"at {settings['site']}, {settings['positions']}: {settings['subspace']} of {k} dimensions; "
        f"{int(data['n'])} held-out pairs of {int(data['groups'])} groups"
    )


def panels(data: xr.Dataset) -> list[Lines]:
    """Two accuracies and the score."""
    unit = data["score"].attrs["unit"]
    settings: Mapping[str, Any] = json.loads(data.attrs["provenance"])["settings"]
    shares = [Lines(name, said, _lines(data, name), (-0.03, 1.03)) for name, said in SHARES.items()]
    metric = str(settings["metric"]).replace("_", " ")
    return [*shares, Lines("score", f"{metric}, {unit}", _lines(data, "score"))]


def _lines(data: xr.Dataset, name: str) -> dict[str, Line]:
    there = data["control"].values.tolist()
    return {
        NAMES[control]: Line(
            data[name].sel(control=control),
            data[f"{name}_low"].sel(control=control),
            data[f"{name}_high"].sel(control=control),
            control=control not in CLAIMS,
        )
        for control in DRAWN
        if control in there
    }


def facts(data: xr.Dataset, layer: int) -> list[tuple[str, str]]:
    """Accuracy with its interval, and score, of each control at one layer."""
    if layer not in data["layer"].values:
        return []
    here = data.sel(layer=layer)
    unit = data["score"].attrs["unit"]
    return [
        (NAMES[control], _said(here.sel(control=control), unit))
        for control in data["control"].values.tolist()
    ]


def _said(cell: xr.Dataset, unit: str) -> str:
    share, low, high, score = (
        float(cell[name]) for name in ("accuracy", "accuracy_low", "accuracy_high", "score")
    )
    return f"{share:.0%} of pairs ({low:.0%} to {high:.0%}), score {score:.3g} {unit}"

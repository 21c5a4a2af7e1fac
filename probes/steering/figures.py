"""The figures of what a probe causes: their panels, under what was done and to which class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from workbench.figures import Panel, headed, layer_panels, markup, shorten, themed

__all__ = ["ablated", "drawn", "steered"]

LETTER = 6.6  # pixels of a letter of the heading, on average
LETTERS = 60  # of a feature's name
KINDS = {"difference": "the difference of its class means", "probe": "its sparse probe's direction"}


def drawn(
    data: xr.Dataset, panels: Sequence[Panel], said: Sequence[str], theme: str, layer: int | None
) -> go.Figure:
    """Panels under a bold line and others, each wrapped to the figure's width."""
    known = data["layer"].values.tolist()
    figure = layer_panels({"": panels}, themed(theme), layer=layer if layer in known else None)
    wide = int(figure.layout.width / LETTER)
    head, *more = ([markup(part) for part in wrap(line, wide)] for line in said)
    return headed(figure, [f"<b>{part}</b>" for part in head] + [p for line in more for p in line])


def steered(data: xr.Dataset) -> Iterator[str]:
    """Towards which class, by what, and what is measured there."""
    made, below = _settings(data), data["strength"] < 0
    yield f"Steered {'away from' if below.all() else 'towards'} {_name(made)}"
    yield f"by {KINDS[made['direction']]}, added at positions: {made['positions']}"
    yield "p(in class): answers of prompts that have it, behind prompts that lack it"
    if below.any() and not below.all():
        yield "strengths below 0 steer away from it"


def ablated(data: xr.Dataset) -> Iterator[str]:
    """Whose units were taken out, and how."""
    made = _settings(data)
    yield f"Without the units of the probe of {_name(made)}"
    yield f"set to {'0' if made['how'] == 'zero' else 'their means'}; in class: what has it"


def _settings(data: xr.Dataset) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(data.attrs["provenance"])["settings"]
    return made


def _name(made: dict[str, Any]) -> str:
    return shorten(made["feature"], LETTERS)

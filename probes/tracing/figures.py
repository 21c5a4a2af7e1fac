"""The figure of a causal trace: one prompt's heat maps, or the averages of several by token role."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import xarray as xr

from probes.tracing.average_figure import figure_of_roles
from probes.tracing.prompt_figure import figure_of_prompt

__all__ = ["figure"]


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    value: str = "effect",
    **averaging: Any,
) -> go.Figure:
    """Of several prompts with subjects and none of them named, averages by role; else one prompt.

    Args:
        data: a result's dataset.
        theme: "light" or "dark".
        prompt: id of the prompt.
        selected: the (layer, position) to mark in a prompt's heat maps.
        value: effect or normalised; of one prompt also score.
        averaging: twin, resamples and seed, as `figure_of_roles` has them.

    Raises:
        ResultError: the result has no such prompt or value.
    """
    several = (data["prompt"] != data["prompt"][0]).any() and (data["role"] >= 0).any()
    if averaging or (several and prompt is None and selected is None):
        return figure_of_roles(data, theme=theme, value=value, **averaging)
    return figure_of_prompt(data, theme=theme, prompt=prompt, selected=selected, value=value)

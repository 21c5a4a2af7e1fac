"""Tidy rows of attention's sharpness, and the means over a prompt's queries that figures draw too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from probes.attention_entropy.growth import by_prompt
from workbench.tidy import plain

__all__ = ["rows"]

MEANS = ("entropy", "entropy_share", "entropy_uniform", "entropy_twin", "effective_beta")
FEWER = {"beta_queries": "effective_beta", "sink_queries": "sink"}
SINKS = ("sink", "sink_uniform", "top_sink", "top_sink_uniform")


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, layer, head: means over queries with a choice; growth and its twin's.

    `effective_temperature` is 1 / the mean effective_beta. `queries` is how many have an entropy, which
    the means are over; but effective_beta is over those `beta_queries` of which some beta has the entropy,
    and sink and its control over those `sink_queries` that see the first token. What was not measured, or
    is not defined, is None.
    """
    prompts = data["prompt"].values
    growth = {"growth": by_prompt(data)}
    if "entropy_twin" in data:
        growth["growth_twin"] = by_prompt(data, "entropy_twin")
    for number, prompt in enumerate(dict.fromkeys(prompts.tolist())):
        one = data.isel(place=np.flatnonzero(prompts == prompt))
        columns = _columns(one) | {k: v.values[number] for k, v in growth.items()}
        for i, layer in enumerate(data["layer"].values.tolist()):
            for j, head in enumerate(data["head"].values.tolist()):
                yield {"prompt": prompt, "layer": layer, "head": head} | _row(columns, i, j)


def _columns(one: xr.Dataset) -> dict[str, Any]:
    found = {name: one[name].mean("place").values for name in (*MEANS, *SINKS) if name in one}
    found["top_sink_position"] = one["top_sink_position"].max("place").values
    found["queries"] = one["entropy"].notnull().any("head").sum("place").values
    for name, values in FEWER.items():
        if values in one:
            found[name] = one[values].notnull().sum("place").values
    return found


def _row(columns: dict[str, Any], layer: int, head: int) -> dict[str, Any]:
    names = (*MEANS, "effective_temperature", *FEWER, "growth", "growth_twin", *SINKS)
    row: dict[str, Any] = dict.fromkeys(names)
    for name, values in columns.items():
        row[name] = plain(values[layer, head] if values.ndim == 2 else values[layer])
    beta = row["effective_beta"]
    row["effective_temperature"] = 1 / beta if beta else None
    if row["top_sink_position"] < 0:
        row["top_sink_position"] = None
    return row

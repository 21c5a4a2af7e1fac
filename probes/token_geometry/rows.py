"""Tidy rows of token geometry: one a token and layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from workbench.figures import reading
from workbench.tidy import plain

__all__ = ["of_prompt", "rows"]


def of_prompt(data: xr.Dataset, prompt: str | int | None) -> xr.Dataset:
    """The part of a result that speaks of one prompt, `other` as long as its tokens.

    Raises:
        ResultError: the result has no such prompt.
    """
    one = reading.of_prompt(data, prompt)
    return one.isel(other=slice(0, one.sizes["place"]))


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Keys prompt, layer, view, position, token; then where it is and what is near.

    `shown` is the share of the token's direction that its point has; `nearest` is another token of
    the prompt and `nearest_cosine` its cosine; None for a prompt of one token.
    """
    for prompt in dict.fromkeys(data["prompt"].values.tolist()):
        one = of_prompt(data, prompt)
        for view in one["view"].values.tolist():
            for row in _of_view(one.sel(view=view)):
                yield {"prompt": prompt, "layer": row.pop("layer"), "view": view} | row


def _of_view(one: xr.Dataset) -> Iterator[dict[str, Any]]:
    n = one.sizes["place"]
    apart = one["cosine"].transpose("layer", "place", "other").values.copy()
    apart[:, np.arange(n), np.arange(n)] = -np.inf  # itself is no neighbour
    columns = _columns(one)
    tokens, positions = one["token"].values.tolist(), one["position"].values.tolist()
    for i, layer in enumerate(one["layer"].values.tolist()):
        for j in range(n):
            near = int(apart[i, j].argmax()) if n > 1 else None
            yield {
                "layer": layer,
                "position": positions[j],
                "token": tokens[j],
                **{name: plain(values[i, j]) for name, values in columns.items()},
                "order": int(one["order"][j]),
                "nearest": None if near is None else tokens[near],
                "nearest_position": None if near is None else positions[near],
                "nearest_cosine": None if near is None else plain(apart[i, j, near]),
            }


def _columns(one: xr.Dataset) -> dict[str, Any]:
    """[layer, place] each."""
    point = one["point"].transpose("axis", "layer", "place").values
    x, y, z = point
    found = {"x": x, "y": y, "z": z, "shown": (point**2).sum(0)}
    for name in ("captured", "norm", "mean_cosine", "mean_cosine_twin"):
        if name in one:
            found[name] = one[name].transpose("layer", "place").values
    if "mean_cosine_twin" not in one:
        found["mean_cosine_twin"] = np.full_like(x, np.nan)
    return found

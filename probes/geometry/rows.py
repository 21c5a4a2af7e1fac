"""Tidy rows of token geometry: one a token and layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from workbench.figures.reading import chosen
from workbench.tidy import plain

__all__ = ["of_prompt", "rows"]


def of_prompt(data: xr.Dataset, prompt: str | int | None) -> xr.Dataset:
    """The part of a result that speaks of one prompt, `other` as long as its tokens.

    Raises:
        ResultError: the result has no such prompt.
    """
    wanted = chosen("prompt", prompt, data["prompt"].values)
    one = data.isel(place=np.flatnonzero(data["prompt"].values == wanted))
    return one.isel(other=slice(0, one.sizes["place"]))


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Keys prompt, layer, view, position, token; then where it is and what is near.

    `shown` is the share of the token's direction that its point has; `nearest` is another token of
    the prompt and `nearest_cosine` its cosine; None for a prompt of one token.
    """
    for prompt in dict.fromkeys(data["prompt"].values.tolist()):
        one = of_prompt(data, prompt)
        n = one.sizes["place"]
        apart = one["cosine"].transpose("layer", "place", "other").values.copy()
        apart[:, np.arange(n), np.arange(n)] = -np.inf  # itself is no neighbour
        tokens, positions = one["token"].values.tolist(), one["position"].values.tolist()
        for i, layer in enumerate(one["layer"].values.tolist()):
            here = one.isel(layer=i)
            for j in range(n):
                near = int(apart[i, j].argmax()) if n > 1 else None
                yield {
                    "prompt": prompt,
                    "layer": layer,
                    "view": "raw",
                    "position": positions[j],
                    "token": tokens[j],
                    **_row(here.isel(place=j)),
                    "nearest": None if near is None else tokens[near],
                    "nearest_position": None if near is None else positions[near],
                    "nearest_cosine": None if near is None else plain(apart[i, j, near]),
                }


def _row(cell: xr.Dataset) -> dict[str, Any]:
    x, y, z = cell["point"].values.tolist()
    twin = cell["mean_cosine_twin"].item() if "mean_cosine_twin" in cell else None
    return {
        "x": x,
        "y": y,
        "z": z,
        "shown": x * x + y * y + z * z,
        "captured": plain(cell["captured"].item()),
        "order": int(cell["order"]),
        "norm": plain(cell["norm"].item()),
        "mean_cosine": plain(cell["mean_cosine"].item()),
        "mean_cosine_twin": plain(twin),
    }

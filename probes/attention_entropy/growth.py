"""How entropy grows with the number of visible keys: its slope on their logarithm."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["LEAST_KEYS", "by_prompt", "slopes"]

LEAST_KEYS = 4  # with fewer, entropy has hardly a choice
LEAST_QUERIES = 8


def slopes(entropies: NDArray[np.float64], keys: NDArray[np.int64]) -> NDArray[np.float64]:
    """Least-squares slope of H on ln n over queries of at least `LEAST_KEYS` visible keys.

    1 for attention that stays equally spread as the context grows (H = ln n + const; uniform
    attention), 0 for attention whose entropy the length does not change, which is what scaling
    the scores by ln n is for (Su 2021; Chiang and Cholak 2022, arXiv 2202.12172).

    Args:
        entropies: [..., N] in nat.
        keys: [N] n.

    Returns:
        [...]; NaN where fewer than 8 queries, or not a doubling of n, are there.
    """
    enough = keys >= LEAST_KEYS
    x = np.log(keys[enough])
    if len(x) < LEAST_QUERIES or x.max() - x.min() < math.log(2):
        return np.full(entropies.shape[:-1], np.nan)
    x = x - x.mean()
    found: NDArray[np.float64] = entropies[..., enough] @ x / (x @ x)
    return found


def by_prompt(data: xr.Dataset, name: str = "entropy") -> xr.DataArray:
    """(prompt, layer, head) the slope of `name` over each prompt's own queries."""
    prompts = data["prompt"].values
    names = list(dict.fromkeys(prompts.tolist()))
    found = [_of_prompt(data.isel(place=np.flatnonzero(prompts == one)), name) for one in names]
    coords = {"prompt": names, "layer": data["layer"].values, "head": data["head"].values}
    return xr.DataArray(found, coords, ("prompt", "layer", "head"), attrs={"unit": "nat / ln key"})


def _of_prompt(one: xr.Dataset, name: str) -> NDArray[np.float64]:
    values = one[name].transpose("layer", "head", "place").values
    keys = one["visible_keys"].transpose("layer", "place").values
    return np.stack([slopes(v.astype(float), n) for v, n in zip(values, keys, strict=True)])

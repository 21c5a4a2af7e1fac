"""Tidy rows of attention, and the means over a prompt's places that figures draw too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SCORES", "means", "rows"]

SCORES = ("sink", "top_sink", "previous", "induction", "duplicate", "entropy", "distance")


def means(one: xr.Dataset) -> xr.Dataset:
    """Means over the places of one prompt at which a score is defined.

    Returns:
        (layer, head): each score and entropy_share; (layer): `<score>_chance` over the same places,
        and `<score>_places`, how many they are; top_sink_position (layer, head).
    """
    found = {}
    for name in SCORES:
        defined = one[name].notnull().any("head")
        found[name] = one[name].mean("place", keep_attrs=True)
        chance = one[f"{name}_chance"]
        found[f"{name}_chance"] = chance.where(defined).mean("place", keep_attrs=True)
        found[f"{name}_places"] = defined.sum("place").assign_attrs(unit="place")
    found["top_sink_places"] = found["entropy_places"]  # it is one number of all these
    found["entropy_share"] = one["entropy_share"].mean("place", keep_attrs=True)
    found["top_sink_position"] = one["top_sink_position"].max("place", keep_attrs=True)
    return one.drop_vars(list(one.data_vars)).drop_dims("place").assign(found)


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, layer, head, and for each score the mean, its chance, its places.

    `top_sink_position` is the key that draws most; what is not defined is None.
    """
    prompts = data["prompt"].values
    for prompt in dict.fromkeys(prompts.tolist()):
        found = means(data.isel(place=np.flatnonzero(prompts == prompt)))
        columns = {str(name): values.values for name, values in found.data_vars.items()}
        for i, layer in enumerate(data["layer"].values.tolist()):
            for j, head in enumerate(data["head"].values.tolist()):
                yield {"prompt": prompt, "layer": layer, "head": head} | _row(columns, i, j)


def _row(columns: dict[str, Any], layer: int, head: int) -> dict[str, Any]:
    found = {}
    for name in SCORES:
        for column in (name, f"{name}_chance", f"{name}_places"):
            values = columns[column]
            found[column] = plain(values[layer, head] if values.ndim == 2 else values[layer])
    position = int(columns["top_sink_position"][layer, head])
    found["top_sink_position"] = None if position < 0 else position
    return found | {"entropy_share": plain(columns["entropy_share"][layer, head])}

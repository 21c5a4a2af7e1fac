"""Tidy rows of input attribution: one a prompt, method, layer, head, query and key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.figures.reading import words

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]

NO_METHOD = ("key_id", "vocabulary", "integrated_gradients_residual")


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, method, layer, head, query, key, weight, query_token, key_token.

    Layer and head are None where a method has none; keys beyond the prompt's end, and queries of
    which a method says nothing, have no row.
    """
    tokens = words(data, data["key_id"].transpose("place", "key"))
    for name, values in data.data_vars.items():
        if name not in NO_METHOD:
            dims = [dim for dim in ("layer", "head") if dim in values.dims]
            array = values.transpose("place", *dims, "key").values
            yield from _of_method(data, str(name), dims, array, tokens)


def _of_method(
    data: xr.Dataset, name: str, dims: Sequence[str], array: Any, tokens: Any
) -> Iterator[dict[str, Any]]:
    axes = [data[dim].values.tolist() for dim in dims]
    columns = (data[c].values.tolist() for c in ("prompt", "position", "token"))
    for place, (prompt, query, token) in enumerate(zip(*columns, strict=True)):
        for cell in np.ndindex(*array.shape[1:-1]):
            where = dict.fromkeys(("layer", "head")) | {
                dim: axis[i] for dim, axis, i in zip(dims, axes, cell, strict=True)
            }
            for key, weight in enumerate(array[(place, *cell)].tolist()):
                if weight == weight:  # not NaN
                    yield {
                        "prompt": prompt,
                        "method": name,
                        **where,
                        "query": query,
                        "key": key,
                        "weight": weight,
                        "query_token": token,
                        "key_token": tokens[place, key],
                    }

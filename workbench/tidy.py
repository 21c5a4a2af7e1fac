"""Tidy rows of any result: the rows of an instrument that says nothing better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["plain", "rows"]

TEXTS = "vocabulary"
PLACE = ("prompt", "position", "token")


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """One row a cell: the coordinates of its axes, then the variables that have just these axes.

    Variables with other axes follow in rows of their own. The axis `place` is written as prompt,
    position and token; a number that does not exist is None; token ids are written as their texts.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, values in data.data_vars.items():
        if name != TEXTS:
            groups.setdefault(_ordered(values.dims), []).append(str(name))
    for dims, names in groups.items():
        yield from _cells(data, dims, names)


def _ordered(dims: Sequence[Any]) -> tuple[str, ...]:
    """Place or prompt first, so that a prompt's rows stand together."""
    return tuple(sorted(map(str, dims), key=lambda dim: dim not in ("prompt", "place")))


def _cells(data: xr.Dataset, dims: tuple[str, ...], names: list[str]) -> Iterator[dict[str, Any]]:
    columns = {name: _column(data, name, dims) for name in names}
    axes = [_labels(data, dim) for dim in dims]
    for cell in np.ndindex(*(len(axis) for axis in axes)):
        row: dict[str, Any] = {}
        for axis, index in zip(axes, cell, strict=True):
            row |= axis[index]
        yield row | {name: plain(values[cell]) for name, values in columns.items()}


def _labels(data: xr.Dataset, dim: str) -> list[dict[str, Any]]:
    if dim != "place":
        values = data[dim].values if dim in data.coords else np.arange(data.sizes[dim])
        return [{dim: plain(value)} for value in values]
    known = [name for name in PLACE if name in data.coords]
    return [
        {name: plain(data[name].values[i]) for name in known} for i in range(data.sizes["place"])
    ]


def _column(data: xr.Dataset, name: str, dims: tuple[str, ...]) -> Any:
    values = data[name].transpose(*dims)
    if values.attrs.get("unit") != "token id" or TEXTS not in data:
        return values.values
    texts = data[TEXTS].reindex(token_id=values.values.ravel(), fill_value=None).values
    return texts.reshape(values.shape)


def plain(value: Any) -> Any:
    """A numpy scalar as JSON has it: infinite and missing numbers are None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value

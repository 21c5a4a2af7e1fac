"""One prompt at one site out of a result's dataset, and the words for its token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from workbench.errors import ResultError

__all__ = ["Pick", "chosen", "of_prompt", "picked", "reading", "words"]

Pick = slice | Sequence[int] | None
"""Coordinates along one axis: a slice with both ends included, a list, or None for the default."""


def reading(
    data: xr.Dataset, prompt: str | int | None = None, site: str | None = None
) -> xr.Dataset:
    """One prompt at one site: dims layer, position, ... instead of site and place.

    The first prompt and the first site where they are None.

    Raises:
        ResultError: the result has no such prompt or site.
    """
    site = chosen("site", site, data["site"].values)
    here = of_prompt(data.sel(site=site), prompt)
    if "place" in here.indexes:
        here = here.reset_index("place")
    return here.swap_dims(place="position")


def of_prompt(data: xr.Dataset, prompt: str | int | None = None) -> xr.Dataset:
    """The places of one prompt, the first one where None.

    Raises:
        ResultError: the result has no such prompt.
    """
    names = data["prompt"].values
    return data.isel(place=np.flatnonzero(names == chosen("prompt", prompt, names)))


def words(data: xr.Dataset, ids: xr.DataArray) -> npt.NDArray[Any]:
    """Text of token ids, in the ids' own shape; "" where there is no id."""
    flat = np.ravel(ids.values)
    found = data["vocabulary"].reindex(token_id=flat, fill_value="").values
    return np.asarray(found, dtype=object).reshape(np.shape(ids.values))


def chosen(name: str, asked: Any, values: npt.NDArray[Any]) -> Any:
    """What was asked for, or the first value where nothing was.

    Raises:
        ResultError: it is not among the values.
    """
    known = list(dict.fromkeys(values.tolist()))
    if asked is None:
        return known[0]
    if asked not in known and str(asked) in known:  # ids beside indices are all texts
        return str(asked)
    if asked not in known:
        shown = ", ".join(map(str, known[:8])) + (", ..." if len(known) > 8 else "")
        raise ResultError(f"no {name} {asked!r} in this result: expected one of {shown}")
    return asked


def picked(one: xr.Dataset, axis: str, pick: slice | Sequence[int]) -> list[int]:
    """The coordinates along an axis that a pick stands for.

    Raises:
        ResultError: a coordinate is not there, or none is picked.
    """
    if isinstance(pick, slice):
        found: list[int] = one[axis].sel({axis: pick}).values.tolist()
    else:
        found = [chosen(axis, value, one[axis].values) for value in pick]
    if not found:
        raise ResultError(f"no {axis} in {pick}: expected some of {one[axis].values.tolist()}")
    return found

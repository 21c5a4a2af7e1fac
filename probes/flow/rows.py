"""Tidy rows of layers as a flow: of tokens, and of whole prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.flow.measure import OF_PROMPT
from workbench.tidy import rows as cells

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["firsts", "limit", "rows"]

KEYS = ("prompt", "view", "layer", "position", "token", "substeps", "exponent", "order")


def firsts(data: xr.Dataset) -> xr.Dataset:
    """One place of each prompt, for what is of whole prompts."""
    first = np.unique(data["prompt"].values, return_index=True)[1]
    return data.isel(place=np.sort(first))


def limit(data: xr.Dataset) -> int:
    """The N of the steps that ODE defects are held against."""
    return int(json.loads(data.attrs["provenance"])["settings"]["limit"])


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with every key of `KEYS` (None where a number has no such axis) and the numbers.

    One a (prompt, view, layer, position) with step, turn, straightness, bracket, swap,
    integrated_defect and limit_error; one for each number of substeps with ode_defect. Of whole prompts,
    without a position: loss; exponents by exponent; stretch by layer too; loss_change by order;
    layer_loss_change and random_change by layer too. view is "model" or "random", the untrained twin.
    """
    of_prompts = [name for name in OF_PROMPT if name in data]
    yield from _complete(data.drop_vars(of_prompts), of_prompts=False)
    yield from _complete(firsts(data)[of_prompts], of_prompts=True)


def _complete(data: xr.Dataset, *, of_prompts: bool) -> Iterator[dict[str, Any]]:
    for cell in cells(data):
        row = dict.fromkeys(KEYS) | cell
        yield row | ({"position": None, "token": None} if of_prompts else {})

"""Tidy rows of edge attribution: edges, the largest first, then the circuits of the curve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.circuits.reading import finite

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["largest", "rows"]

ENDS = ("part", "layer", "head")
NUMBERS = ("score", "stderr")
EDGE = [f"{dim}{end}" for dim in ("sender", "receiver") for end in ("", *(f"_{e}" for e in ENDS))]
CURVE = ("edges", "faithfulness", "control")


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, sender, receiver, their parts, layers and heads, score, stderr, rank, ...

    `rank` is 1 for the largest |score|, so that the circuit of k edges has those of rank 1 to k. Then rows
    with `edges`, `faithfulness`, and `control`: null for the circuit itself, else the random draw's number.
    """
    for place, prompt in enumerate(data["prompt"].values.tolist()):
        one = data.isel(place=place)
        both = {name: float(one[name]) for name in ("clean", "corrupted")}
        for rank, edge in enumerate(largest(one), 1):
            yield {"prompt": prompt, **edge, "rank": rank, **dict.fromkeys(CURVE), **both}
        no_edge = dict.fromkeys((*EDGE, *NUMBERS, "rank"))
        for circuit in _curve(one):
            yield {"prompt": prompt, **no_edge, **dict(zip(CURVE, circuit, strict=True)), **both}


def largest(one: xr.Dataset, most: int | None = None) -> Iterator[dict[str, Any]]:
    """The edges of one prompt, the largest |score| first."""
    numbers = {name: one[name].transpose("sender", "receiver").values for name in NUMBERS}
    nodes = {dim: _nodes(one, dim) for dim in ("sender", "receiver")}
    sizes = np.abs(numbers["score"]).ravel()
    order = np.argsort(-np.nan_to_num(sizes, nan=-1), kind="stable")[: np.isfinite(sizes).sum()]
    for place in order[:most].tolist():
        sender, receiver = divmod(place, len(nodes["receiver"]))
        values = {name: finite(each[sender, receiver]) for name, each in numbers.items()}
        yield nodes["sender"][sender] | nodes["receiver"][receiver] | values


def _nodes(one: xr.Dataset, dim: str) -> list[dict[str, Any]]:
    """What a row says of each sender or receiver; no head of those that have none."""
    columns = {end: one[f"{dim}_{end}"].values.tolist() for end in ENDS}
    return [
        {
            dim: name,
            f"{dim}_part": columns["part"][i],
            f"{dim}_layer": columns["layer"][i],
            f"{dim}_head": columns["head"][i] if columns["head"][i] >= 0 else None,
        }
        for i, name in enumerate(one[dim].values.tolist())
    ]


def _curve(one: xr.Dataset) -> Iterator[tuple[int, float | None, int | None]]:
    random = one["random_faithfulness"].transpose("edges", "draw").values.tolist()
    own = one["faithfulness"].values.tolist()
    for i, edges in enumerate(one["edges"].values.tolist()):
        yield edges, finite(own[i]), None
        yield from ((edges, finite(share), draw) for draw, share in enumerate(random[i]))

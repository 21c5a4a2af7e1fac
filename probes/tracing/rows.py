"""Tidy rows of a causal trace: one a prompt, site, layer and position."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.causal.roles import ROLES
from workbench.figures.reading import words
from workbench.results import settings_of
from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]

Row = dict[str, Any]
CELL = ("score", "effect", "stderr")


def rows(data: xr.Dataset) -> Iterator[Row]:
    """Rows with keys prompt, site, layer, position, token, score, effect, stderr, clean, ...

    `score` and `corrupted` are means over samples. `role` and `group` are null where there is no
    subject; `target` and `top` (the clean run's own) are texts, `correct` says whether they agree.
    Cells that were not measured have no row. Rows go prompt by prompt, then site, layer and position.
    """
    means = data.assign(score=data["score"].mean("sample"))
    cells = {
        name: means[name].transpose("place", "site", "layer").values
        for name in (*CELL, "normalised")
    }
    heads, tails = _of_places(means)
    layers, sites = data["layer"].values.tolist(), data["site"].values.tolist()
    for places in _prompts(data["prompt"].values):
        for s, site in enumerate(sites):
            for i, layer in enumerate(layers):
                for p in places:
                    if np.isnan(cells["effect"][p, s, i]):
                        continue
                    numbers = {name: plain(values[p, s, i]) for name, values in cells.items()}
                    yield _row(heads[p], {"site": site, "layer": layer}, numbers, tails[p])


def _row(head: Row, where: Row, numbers: Row, tail: Row) -> Row:
    """In the order that every instrument's rows have: where, what, and what it is held against."""
    return {
        "prompt": head["prompt"],
        **where,
        "position": head["position"],
        "token": head["token"],
        **{name: numbers[name] for name in CELL},
        "clean": tail["clean"],
        "corrupted": tail["corrupted"],
        "normalised": numbers["normalised"],
        **{name: value for name, value in tail.items() if name not in ("clean", "corrupted")},
    }


def _of_places(data: xr.Dataset) -> tuple[list[Row], list[Row]]:
    """What the rows of one place have in common."""
    settings = settings_of(data)
    made = {name: settings.get(name) for name in ("direction", "metric")}
    heads = _records({name: data[name].values for name in ("prompt", "position", "token")})
    tails = _records(
        {
            "clean": data["clean"].values,
            "corrupted": data["corrupted"].mean("sample").values,
            "total": data["total"].values,
            "role": [ROLES[r] if r >= 0 else None for r in data["role"].values],
            "group": [int(g) if g >= 0 else None for g in data["group"].values],
            "target": [text or None for text in words(data, data["target_id"])],
            "top": [text or None for text in words(data, data["top_id"])],
            "correct": [bool(c) if c >= 0 else None for c in data["correct"].values],
        }
    )
    return heads, [tail | made for tail in tails]


def _records(columns: dict[str, Any]) -> list[Row]:
    return [
        dict(zip(columns, map(plain, values), strict=True))
        for values in zip(*columns.values(), strict=True)
    ]


def _prompts(names: Any) -> list[Any]:
    """Places of each prompt, in their order."""
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    return [range(start, end) for start, end in pairwise(starts)]

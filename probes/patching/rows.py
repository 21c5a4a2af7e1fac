"""Tidy rows of a patching result: one a prompt, site, layer, head and position."""

from __future__ import annotations

from collections.abc import Iterator
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
SAID = ("direction", "metric", "align", "receivers", "mlps")


def rows(data: xr.Dataset) -> Iterator[Row]:
    """Rows with keys prompt, site, layer, head, position, token, score, effect, stderr, clean, ...

    `head` is null of sites that are patched as a whole; `position` and `token` are null where several
    tokens were patched together, and `tokens` says how many; `stderr` is null: there is one sample.
    Cells that do not exist have no row.
    """
    heads, tails = _of_places(data)
    kinds = [("", "site", False), ("head_", "head_site", True)]
    grids = [
        (data[axis].values.tolist(), _values(data, prefix, axis, by_head), by_head)
        for prefix, axis, by_head in kinds
        if f"{prefix}score" in data
    ]
    layers = data["layer"].values.tolist()
    for place, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        for sites, values, by_head in grids:
            for s, layer, h in map(tuple, np.argwhere(~np.isnan(values["score"][place])).tolist()):
                numbers = {name: plain(value[place, s, layer, h]) for name, value in values.items()}
                where = {"site": sites[s], "layer": layers[layer], "head": h if by_head else None}
                yield _row(head, where, numbers, tail)


def _values(data: xr.Dataset, prefix: str, axis: str, by_head: bool) -> dict[str, Any]:
    """Arrays [place, site, layer, head], of whole sites with a head axis of one."""
    order = ("place", axis, "layer", *(("head",) if by_head else ()))
    found = {
        name: data[prefix + name].transpose(*order).values
        for name in ("score", "effect", "normalised")
    }
    return found if by_head else {name: value[..., None] for name, value in found.items()}


def _row(head: Row, where: Row, numbers: Row, tail: Row) -> Row:
    """In the order that every causal instrument's rows have."""
    return {
        "prompt": head["prompt"],
        **where,
        "position": head["position"],
        "token": head["token"],
        "score": numbers["score"],
        "effect": numbers["effect"],
        "stderr": None,
        "clean": tail["clean"],
        "corrupted": tail["corrupted"],
        "normalised": numbers["normalised"],
        **{name: value for name, value in tail.items() if name not in ("clean", "corrupted")},
    }


def _of_places(data: xr.Dataset) -> tuple[list[Row], list[Row]]:
    """What the rows of one place have in common."""
    settings = settings_of(data)
    made = {name: _text(settings[name]) for name in SAID if name in settings}
    several = data["tokens"].values > 1
    columns = {name: data[name].values for name in ("prompt", "position", "token")}
    heads = [
        row | ({"position": None, "token": None} if together else {})
        for row, together in zip(_records(columns), several, strict=True)
    ]
    tails = _records(
        {
            **{name: data[name].values for name in ("clean", "corrupted", "total", "tokens")},
            "role": [ROLES[role] if role >= 0 else None for role in data["role"].values],
            "group": data["group"].values,
            "target": [text or None for text in words(data, data["target_id"])],
            "top": [text or None for text in words(data, data["top_id"])],
            "correct": [bool(one) if one >= 0 else None for one in data["correct"].values],
        }
    )
    return heads, [tail | made for tail in tails]


def _text(value: Any) -> Any:
    return ",".join(value) if isinstance(value, list) else value


def _records(columns: dict[str, Any]) -> list[Row]:
    return [
        dict(zip(columns, map(plain, values), strict=True))
        for values in zip(*columns.values(), strict=True)
    ]

"""The heat maps of a patching result: layer by token or role, and layer by head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from probes.causal.roles import ROLES
from probes.patching.reading import SITES, Mean, is_together, mean_of, of_prompt, place_of
from workbench.figures import visible

__all__ = ["Map", "maps"]


@dataclass(frozen=True)
class Map:
    """One heat map.

    Attributes:
        title: what is patched, and where.
        cells: [layer, column].
        columns: their names.
        positions: of columns that are tokens of one prompt; empty of others.
        by_head: whether columns are heads.
    """

    title: str
    cells: Mean
    columns: Sequence[str]
    positions: Sequence[int] = ()
    by_head: bool = False


def maps(
    data: xr.Dataset,
    value: str,
    prompt: str | int | None = None,
    position: int | None = None,
) -> list[Map]:
    """Whole sites by token (of one prompt), by role (of several) or by site; then heads by head.

    Args:
        prompt: None for all of them.
        position: of one prompt, where heads are shown; the last where None.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    names = data["prompt"].values
    single = prompt is not None or position is not None or bool((names == names[0]).all())
    shown = of_prompt(data, prompt) if single else data
    found = _whole(shown, value, single) if "score" in data else []
    if "head_score" in data:
        found += _heads(data, value, prompt, position, single)
    return found


def _whole(shown: xr.Dataset, value: str, single: bool) -> list[Map]:
    sites = shown["site"].values.tolist()
    values = shown[value].transpose("place", "site", "layer").values
    group = shown["group"].values
    if is_together(shown):
        mean = mean_of(values.swapaxes(1, 2), group)
        return [Map("by site", mean, [SITES[site] for site in sites])]
    if single:
        columns = _tokens(shown)
        positions = shown["position"].values.tolist()
        return [
            Map(SITES[site], _alone(values[:, s].T), columns, positions)
            for s, site in enumerate(sites)
        ]
    roles = [role for role in range(len(ROLES)) if (shown["role"].values == role).any()]
    if not roles:  # no prompt says what its tokens are
        last = _lasts(shown)
        mean = mean_of(values[last].swapaxes(1, 2), group[last])
        return [Map("at the last token, by site", mean, [SITES[site] for site in sites])]
    found = []
    for s, site in enumerate(sites):
        means = [
            mean_of(values[here, s], group[here])
            for here in (shown["role"].values == role for role in roles)
        ]
        cells = Mean(*(np.stack([getattr(m, part) for m in means], -1) for part in PARTS))
        found.append(Map(SITES[site], cells, [ROLES[r].replace("_", " ") for r in roles]))
    return found


PARTS = ("value", "half", "n")


def _heads(
    data: xr.Dataset, value: str, prompt: str | int | None, position: int | None, single: bool
) -> list[Map]:
    where = ""
    if single:
        places = data.isel(place=[place_of(data, prompt, position)])
        if not is_together(data):
            where = f" at {int(places['position'][0])} {visible(str(places['token'].values[0]))}"
    else:
        places = data.isel(place=_lasts(data))
        where = "" if is_together(data) else " at the last token"
    values = places[f"head_{value}"].transpose("place", "head_site", "layer", "head").values
    heads = [str(head) for head in data["head"].values.tolist()]
    return [
        Map(
            f"{SITES[site]}{where}",
            mean_of(values[:, s], places["group"].values),
            heads,
            by_head=True,
        )
        for s, site in enumerate(data["head_site"].values.tolist())
    ]


def _alone(values: NDArray[Any]) -> Mean:
    """Numbers of one prompt, which have no interval."""
    return Mean(values, np.full(values.shape, np.nan), np.isfinite(values).astype(np.int64))


def _lasts(data: xr.Dataset) -> NDArray[np.int64]:
    """The last place of each prompt."""
    names = data["prompt"].values
    return np.flatnonzero(np.append(names[1:] != names[:-1], True))


def _tokens(one: xr.Dataset) -> list[str]:
    pairs = zip(one["token"].values, one["position"].values, strict=True)
    return [f"{visible(str(token))} {position}" for token, position in pairs]

"""Scores of attention patterns, and what uniform attention would score; names of axes are not here."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lenses.attention.keys import KINDS, Keys

__all__ = ["scores", "uniform"]

AT_ONCE = 2**24  # weights that are looked at together, so that no copy of a long pattern is made


def scores(pattern: Tensor, keys: Keys) -> dict[str, Tensor]:
    """Scores of each head at each place, from `pattern` [N, heads, keys].

    Returns:
        [heads, N] each, NaN where undefined: the weight on keys of each of `KINDS`; entropy (nat),
        distance (tokens); top_sink, top_sink_position (see `lenses.attention.instrument.Attention`).
    """
    dtype = torch.promote_types(pattern.dtype, torch.float32)
    heads, width = pattern.shape[1:]
    parts = []
    drawn = pattern.new_zeros(len(keys.tokens), heads, width, dtype=dtype)
    for part in _spans(len(keys), heads * width):
        weights, seen = pattern[part].to(dtype), keys[part]
        chooses = seen.visible.sum(-1) > 1
        drawn.index_add_(0, seen.row[chooses], weights[chooses])
        parts.append(_of_places(weights, seen, chooses))
    found = {name: torch.cat([part[name] for part in parts]).T for name in parts[0]}
    weight, position = (drawn / _choosing(keys, dtype)[:, None, None]).max(-1)
    found["top_sink"] = weight[keys.row].T
    none = weight[keys.row].T.isnan()
    found["top_sink_position"] = torch.where(none, -1, position[keys.row].T)
    return found


def uniform(keys: Keys, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """[N] the same scores of attention that is uniform over the visible keys, and their number."""
    parts = []
    drawn = torch.zeros(keys.tokens.shape, dtype=dtype, device=keys.tokens.device)
    for part in _spans(len(keys), keys.tokens.shape[1]):
        seen = keys[part]
        visible = seen.visible
        weights = visible / visible.sum(-1, keepdim=True).to(dtype)
        chooses = visible.sum(-1) > 1
        drawn.index_add_(0, seen.row[chooses], weights[chooses])
        of_places = _of_places(weights[:, None], seen, chooses)
        parts.append({name: value[:, 0] for name, value in of_places.items()})
        parts[-1]["visible_keys"] = visible.sum(-1)
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    found["top_sink"] = (drawn / _choosing(keys, dtype)[:, None]).amax(-1)[keys.row]
    return found


def _of_places(weights: Tensor, keys: Keys, chooses: Tensor) -> dict[str, Tensor]:
    """[N, heads] each: NaN at places that see one key alone, whose scores would say nothing."""
    found = {}
    kinds = keys.kinds()
    for name in KINDS:
        here = kinds.get(name, torch.zeros_like(keys.visible))
        weight = torch.einsum("nhk,nk->nh", weights, here.to(weights.dtype))
        found[name] = _where(here.any(-1) & chooses, weight)
    total = weights.sum(-1)
    shares = weights / total[..., None]
    found["entropy"] = _where(chooses, torch.special.entr(shares).sum(-1))
    distance = torch.einsum("nhk,nk->nh", shares, keys.behind.abs().to(weights.dtype))
    found["distance"] = _where(chooses & keys.own, distance)
    return found


def _where(defined: Tensor, values: Tensor) -> Tensor:
    return torch.where(defined[:, None], values, math.nan)


def _choosing(keys: Keys, dtype: torch.dtype) -> Tensor:
    """[rows] how many of the places see more than one key; NaN for none."""
    count = torch.zeros(len(keys.tokens), dtype=dtype, device=keys.tokens.device)
    for part in _spans(len(keys), keys.tokens.shape[1]):
        seen = keys[part]
        count.index_add_(0, seen.row, (seen.visible.sum(-1) > 1).to(dtype))
    return torch.where(count > 0, count, math.nan)


def _spans(places: int, each: int) -> Iterator[slice]:
    step = max(1, AT_ONCE // each)
    return (slice(start, min(start + step, places)) for start in range(0, places, step))

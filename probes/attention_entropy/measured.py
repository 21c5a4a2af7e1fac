"""What one layer's patterns say of sharpness; names of axes are not here."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from probes.attention_entropy.inversion import effective_beta
from workbench.models.batch import Places
from workbench.models.captures import Captures

__all__ = ["betas", "cosines", "sharpness", "uniform"]

AT_ONCE = 2**22  # weights that are looked at together, in float64


def sharpness(pattern: Tensor, seen: Tensor, row: Tensor) -> dict[str, Tensor]:
    """Entropy and sinks of each head at each query.

    Args:
        pattern: [N, heads, keys] attention weights.
        seen: [N, keys] the visible keys.
        row: [N] which prompt a query is of.

    Returns:
        [heads, N] each, float64, NaN (-1 for a position) where undefined: entropy in nat of the
        weights divided by their sum; sink; top_sink and top_sink_position, of a prompt's queries
        together.
    """
    chooses = seen.sum(-1) > 1
    drawn = pattern.new_zeros(int(row.max()) + 1, *pattern.shape[1:], dtype=torch.float64)
    entropies = []
    for part in _spans(pattern):
        weights = pattern[part].double()
        own = chooses[part]
        drawn.index_add_(0, row[part][own], weights[own])
        shares = weights / weights.sum(-1, keepdim=True)
        entropies.append(torch.special.entr(shares).sum(-1))
    count = torch.zeros(len(drawn), dtype=torch.float64, device=row.device)
    count.index_add_(0, row, chooses.double())
    most, where = (drawn / count[:, None, None]).max(-1)
    none = (count == 0)[row]
    sink = pattern[..., 0].double()
    return {
        "entropy": _where(chooses, torch.cat(entropies)).T,
        "sink": _where(chooses & seen[:, 0], sink).T,
        "top_sink": _where(~none, most[row]).T,
        "top_sink_position": torch.where(none[:, None], -1, where[row]).T,
    }


def uniform(seen: Tensor, row: Tensor) -> dict[str, Tensor]:
    """[N] the same of equal weight on every visible key."""
    weights = seen / seen.sum(-1, keepdim=True).double()
    found = sharpness(weights[:, None], seen, row)
    return {name: value[0] for name, value in found.items() if name != "top_sink_position"}


def cosines(states: Captures, layer: int, places: Places, keys: int) -> Tensor:
    """[N, keys] cosines of each query's state with its prompt's, float64: NaN beyond its end.

    Args:
        states: resid_post at every position.
        layer: 0..L.
        keys: width of the result.
    """
    units = torch.nn.functional.normalize(states["resid_post", layer].double(), dim=-1)
    where = states.places
    padded = units.new_full((int(where.row.max()) + 1, keys, units.shape[-1]), torch.nan)
    padded[where.row, where.position] = units
    found = torch.empty(len(places), keys, dtype=units.dtype, device=units.device)
    for row, own in enumerate(padded):
        mine = places.row == row
        found[mine] = own[places.position[mine]] @ own.T
    return found


def betas(scores: Tensor, entropies: Tensor, seen: Tensor) -> Tensor:
    """[heads, N] the effective beta of entropies [heads, N] on scores [N, keys]."""
    parts = []
    for part in _spans(scores[:, None].expand(-1, len(entropies), -1)):
        found = effective_beta(scores[part, None], entropies.T[part], seen[part, None])
        parts.append(found)
    return torch.cat(parts).T


def _where(defined: Tensor, values: Tensor) -> Tensor:
    return torch.where(defined[:, None], values, torch.nan)


def _spans(values: Tensor) -> Iterator[slice]:
    """Slices of the first axis of [N, heads, keys]."""
    step = max(1, AT_ONCE // (values.shape[1] * values.shape[2]))
    return (slice(start, start + step) for start in range(0, len(values), step))

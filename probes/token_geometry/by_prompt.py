"""What each prompt of a batch says by itself, written at its places."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from probes.token_geometry.measured import (
    COMPONENTS,
    cluster_order,
    cosines,
    mean_cosine,
    sphere,
    units,
)

__all__ = ["mean_cosines", "of_prompts"]


def of_prompts(views: Mapping[str, Tensor], row: Tensor, at: int) -> dict[str, Tensor]:
    """Cosines, points, order and mean cosine of each prompt's tokens; the norms are the first view's.

    Args:
        views: [layers, N, d] states by view; the order is made of the last one.
        row: [N] which prompt a state is of.
        at: where the order is made, as an index of layers.

    Returns:
        cosine [views, layers, N, widest], NaN beyond a prompt's end; point [views, layers, N, 3];
        captured, mean_cosine [views, layers, N]; order [N]; norm [layers, N].
    """
    raw = next(iter(views.values()))
    layers, count = raw.shape[:2]
    shape, widest = (len(views), layers, count), int(torch.bincount(row).max())
    found = {
        "cosine": raw.new_full((*shape, widest), torch.nan),
        "point": raw.new_zeros(*shape, COMPONENTS),
        "captured": raw.new_zeros(shape),
        "order": torch.zeros_like(row),
        "norm": raw.norm(dim=-1),
        "mean_cosine": torch.stack([mean_cosines(states, row) for states in views.values()]),
    }
    for prompt in range(int(row.max()) + 1):
        here = torch.nonzero(row == prompt)[:, 0]
        for number, states in enumerate(views.values()):
            u = units(states[:, here])
            _write(found, number, here, u)
        found["order"][here] = cluster_order(u[at]).to(row.device)
    return found


def _write(found: dict[str, Tensor], view: int, here: Tensor, u: Tensor) -> None:
    """Write what the directions [layers, n, d] of one prompt say."""
    seen = sphere(u)
    found["cosine"][view, :, here, : u.shape[1]] = cosines(u)
    found["point"][view, :, here] = seen.points
    found["captured"][view, :, here] = seen.captured[:, None]


def mean_cosines(states: Tensor, row: Tensor) -> Tensor:
    """[layers, N] mean cosine of each prompt's states [layers, N, d]."""
    found = states.new_zeros(states.shape[:2])
    for prompt in range(int(row.max()) + 1):
        here = row == prompt
        found[:, here] = mean_cosine(units(states[:, here]))[:, None]
    return found

"""The grid of a causal trace: every cell of a prompt, at each site."""

from __future__ import annotations

from collections.abc import Sequence

from probes.causal.cells import Cell, Put, cell_of
from workbench.models.sites import Site

__all__ = ["SITES", "WINDOWED", "cells_of", "grid", "window_of"]

SITES = ("resid_post", "mlp_out", "attn_out", "severed_mlp", "severed_attn")
WINDOWED = ("mlp_out", "attn_out")
SEVERED = {"severed_mlp": "mlp_out", "severed_attn": "attn_out"}


def window_of(layer: int, window: int, n_layers: int) -> range:
    """The blocks that are restored together around block `layer`.

    With the reference's ends, layer - window // 2 up to layer + ceil(window / 2) - 1: of 10, five below
    and four above (its paper says the reverse), cut at the model's ends.

    >>> window_of(6, 10, 48), window_of(3, 10, 48)
    (range(1, 11), range(1, 8))
    """
    return range(max(1, layer - window // 2), min(n_layers, layer - (-window // 2) - 1) + 1)


def cells_of(site: str, layer: int, column: int, window: int, n_layers: int) -> Cell:
    """What is put in at one cell.

    Args:
        site: resid_post: the state after block `layer`; mlp_out, attn_out: what the blocks of the
            window around it add; severed_mlp, severed_attn: the state, while what later MLPs or
            attention add at this column stays as it was in the run that is put into.
        layer: 1..L; 0 too for resid_post.
        column: the token's.
    """
    at = (column,)
    if site in WINDOWED:
        return cell_of([Put(Site(site, k), at) for k in window_of(layer, window, n_layers)])
    state = Put(Site("resid_post", layer), at)
    if site == "resid_post":
        return (state,)
    frozen = [Put(Site(SEVERED[site], k), at, "base") for k in range(layer + 1, n_layers + 1)]
    return cell_of([state, *frozen])


def grid(
    sites: Sequence[str], layers: Sequence[int], columns: Sequence[int], window: int, n_layers: int
) -> list[Cell]:
    """The cells of every site, layer and column, in this order; empty where there is no such cell."""
    return [
        cells_of(site, layer, column, window, n_layers) if layer > 0 or site not in WINDOWED else ()
        for site in sites
        for layer in layers
        for column in columns
    ]

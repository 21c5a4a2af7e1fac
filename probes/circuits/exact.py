"""The same cells patched one by one, and how well an approximation ranks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from probes.causal.cells import Cell, Put
from probes.causal.effects import Direction, effects
from probes.circuits.pair import Pair
from workbench.models.sites import Site, site_layers

__all__ = ["SAME", "exact", "mean_and_error", "rank_correlation"]

SAME = 1e-4  # effects are equal that differ by no more than this share of the largest


def exact(
    pair: Pair,
    direction: Direction,
    sites: Sequence[str],
    positions: int,
    pace: Callable[[float], None] = lambda _: None,
) -> dict[str, Tensor]:
    """Effects of cells, by site: [layers, samples, positions]; of z [layers, samples, positions, heads].

    Args:
        positions: how many of the first columns.
        pace: called with the share that is done.
    """
    cells = {name: _cells(pair, name, positions) for name in sites}
    found = effects(
        pair.model,
        pair.contrast,
        [cell for those in cells.values() for cell in those],
        metric=pair.metric,
        direction=direction,
        pace=pace,
    )
    base = found.corrupted[0] if direction == "denoising" else found.clean
    counts = [len(those) for those in cells.values()]
    moved = torch.split(found.patched[:, 0] - base, counts)
    return {
        name: _shaped(values, pair, name, positions)
        for name, values in zip(sites, moved, strict=True)
    }


def _cells(pair: Pair, name: str, positions: int) -> list[Cell]:
    heads: Sequence[tuple[int, ...] | None] = [None]
    if name == "z":
        heads = [(head,) for head in range(pair.model.n_heads)]
    return [
        (Put(Site(name, layer), (column,), heads=head),)
        for layer in site_layers(name, pair.model.n_layers)
        for column in range(positions)
        for head in heads
    ]


def _shaped(moved: Tensor, pair: Pair, name: str, positions: int) -> Tensor:
    layers = len(site_layers(name, pair.model.n_layers))
    if name == "z":
        return moved.view(layers, positions, pair.model.n_heads, -1).permute(0, 3, 1, 2)
    return moved.view(layers, positions, -1).transpose(1, 2)


def rank_correlation(approximate: Tensor, true: Tensor, free: Tensor) -> float:
    """Spearman's correlation over the cells that are `free` to have an effect; NaN of fewer than 3.

    Cells whose effect is 0 by construction would all tie in both, and so are left out. Where either
    side's effects are all the same, but for rounding, nothing is ranked and the correlation is NaN: so
    it is of states where the corruption is at the last token, which all give the whole effect.
    """
    from scipy.stats import spearmanr

    pairs = (approximate[free], true[free])
    if int(free.sum()) < 3 or any(map(_is_constant, pairs)):
        return float("nan")
    return float(spearmanr(*(side.cpu().numpy() for side in pairs)).statistic)


def _is_constant(values: Tensor) -> bool:
    return bool(values.max() - values.min() <= SAME * values.abs().max())


def mean_and_error(samples: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The mean over noise samples, and its standard error; NaN of a single sample."""
    count = samples.shape[dim]
    spread = samples.std(dim) if count > 1 else torch.full_like(samples.mean(dim), torch.nan)
    return samples.mean(dim), spread / count**0.5

"""Coarse to fine: exact effects of spans of tokens, of which only those with large effects are split.

1. Cut the prompt, from its first corrupted token on, into a few spans; patch each span whole, at every layer.
2. Where a span's effect is at least a share of the total effect, patch its two halves.
3. So down to single tokens.

A long prompt's grid costs tokens x layers runs; this costs the spans, and the tokens of those that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from probes.causal.cells import Cell, Put
from probes.causal.contrast import Contrast
from probes.causal.effects import Direction, algorithm_of, effects, planned
from probes.causal.metrics import LEAST, Metric
from workbench.models.protocol import Model
from workbench.models.sites import Site

__all__ = ["Found", "Span", "coarse_to_fine", "grid_block_tokens"]


@dataclass(frozen=True)
class Span:
    """Tokens first..end-1 at one site."""

    site: Site
    first: int
    end: int

    @property
    def cell(self) -> Cell:
        """What is put in."""
        return (Put(self.site, tuple(range(self.first, self.end))),)

    def halves(self) -> list[Span]:
        """The two parts of a span of several tokens."""
        middle = (self.first + self.end + 1) // 2
        return [Span(self.site, self.first, middle), Span(self.site, middle, self.end)]


@dataclass(frozen=True)
class Found:
    """What was measured of one prompt.

    Attributes:
        effects: [samples] by span, those that were split among them.
        finest: the spans that were not split, which cover each site without overlap.
        clean: [] score.
        corrupted: [samples] scores.
        block_tokens: how many tokens passed through a block.
    """

    effects: dict[Span, Tensor]
    finest: list[Span]
    clean: Tensor
    corrupted: Tensor
    block_tokens: int


def coarse_to_fine(
    model: Model,
    contrast: Contrast,
    sites: Sequence[Site],
    *,
    metric: Metric,
    direction: Direction,
    end: int,
    spans: int,
    share: float,
    pace: Callable[[float], None] = lambda _: None,
) -> Found:
    """Split spans as long as their effects are large.

    Args:
        contrast: of one prompt.
        end: tokens from it on are not measured.
        spans: how many to begin with.
        share: of the total effect, from which on a span is split.
        pace: called with the share of the tokens whose last span is known.
    """
    waiting = [
        span for site in sites for span in _begin(site, min(contrast.same, end - 1), end, spans)
    ]
    all_tokens = sum(span.end - span.first for span in waiting)
    known: dict[Span, Tensor] = {}
    finest: list[Span] = []
    block_tokens = 0
    while waiting:
        cells = [span.cell for span in waiting]
        measured = effects(model, contrast, cells, metric=metric, direction=direction)
        block_tokens += measured.block_tokens
        clean, corrupted = measured.clean[0], measured.corrupted[0]
        base = corrupted if direction == "denoising" else clean
        moved = measured.patched[:, 0] - base
        known |= dict(zip(waiting, moved, strict=True))
        total = float((clean - corrupted.mean()).abs())
        least = share * max(total, LEAST[metric])
        large = [
            span.end - span.first > 1 and abs(float(one.mean())) >= least
            for span, one in zip(waiting, moved, strict=True)
        ]
        finest += [span for span, split in zip(waiting, large, strict=True) if not split]
        waiting = [
            half
            for span, split in zip(waiting, large, strict=True)
            if split
            for half in span.halves()
        ]
        pace(sum(span.end - span.first for span in finest) / all_tokens)
    return Found(known, finest, clean, corrupted, block_tokens)


def _begin(site: Site, first: int, end: int, spans: int) -> list[Span]:
    """Columns first..end-1 in so many spans of nearly equal length, or single columns where they are few."""
    count = min(spans, end - first)
    edges = [first + (end - first) * i // count for i in range(count + 1)]
    return [Span(site, *edges[i : i + 2]) for i in range(count)]


def grid_block_tokens(model: Model, contrast: Contrast, sites: Sequence[Site], end: int) -> int:
    """How many block-tokens it would take to patch every token by itself, by the same algorithm."""
    tokens = range(contrast.same, end)
    return planned(
        [Span(site, token, token + 1).cell for site in sites for token in tokens],
        algorithm=algorithm_of(model, [site.name for site in sites]),
        n_layers=model.n_layers,
        width=contrast.width,
        same=contrast.same,
        samples=contrast.samples,
        tail=contrast.goal.tokens,
    )

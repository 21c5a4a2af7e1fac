"""How much an interchange runs, before it is run, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from probes.interchange.pairs import Pairs

__all__ = ["Headway", "Runs"]

TOGETHER = 3  # runs over all pairs at a layer: subspace, whole and arbitrary
FITTED = 2  # subspace and arbitrary
BOTH_WAYS = 2  # a fit goes forward and backward


@dataclass(frozen=True)
class Runs:
    """Tokens that are run, without padding.

    Attributes:
        once: of every prompt of a pair.
        pairs, held_out, train: of the bases of all, of the held-out and of the training pairs.
        draws, epochs: how often the held-out ones are run for random subspaces, and the training ones
            for a fit; 0 epochs where nothing is fitted.
        twin: whether the twin is run, too.
    """

    once: int
    pairs: int
    held_out: int
    train: int
    draws: int
    epochs: int
    twin: bool

    @classmethod
    def of(cls, lengths: Tensor, pairs: Pairs, draws: int, epochs: int, twin: bool) -> Runs:
        """Of [prompts] lengths."""
        prompts = sorted({*pairs.base.tolist(), *pairs.source.tolist()})
        base = lengths[pairs.base]
        once, every = int(lengths[prompts].sum()), int(base.sum())
        held = int(base[pairs.held_out].sum())
        return cls(once, every, held, every - held, draws, epochs, twin)

    def tokens(self, layers: Sequence[int]) -> int:
        """Those of all batches: plain runs, the states of every layer on the way, and these layers."""
        states = self.once * (max(layers) + 1 + len(layers))  # the blocks', and the site's
        return (1 + self.twin) * (self.pairs + states) + len(layers) * self._at_layer(1)

    def block_tokens(self, layers: Sequence[int], last: int, ahead: int) -> int:
        """Tokens times the blocks that they pass through.

        Args:
            last: the number of blocks.
            ahead: how many blocks before a layer's end a run with other values begins.
        """
        states = self.once * (max(layers) + len(layers))
        behind = sum(last - layer + ahead for layer in layers)
        return (1 + self.twin) * (last * self.pairs + states) + behind * self._at_layer(BOTH_WAYS)

    def _at_layer(self, ways: int) -> int:
        """Those with other values at one layer; a step of a fit counts `ways` times."""
        fit = ways * self.epochs * self.train
        own = TOGETHER * self.pairs + self.draws * self.held_out + FITTED * fit
        return own + (self.pairs + fit if self.twin else 0)


class Headway:
    """Counts the tokens that were run, and says which share of all they are."""

    def __init__(self, total: int, pace: Callable[[float], None]) -> None:
        self._total, self._pace, self._done = total, pace, 0

    def __call__(self, tokens: int) -> None:
        """So many more are run."""
        self._done += tokens
        self._pace(self._done / self._total)

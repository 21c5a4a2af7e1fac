"""The cells of a patching grid: sites as a whole and head by head, at every layer and slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.causal.cells import Cell, Put
from workbench.models.sites import Site

__all__ = ["BY_HEAD", "SITES", "WHOLE", "Grid", "Scores", "Slot", "put_in"]

WHOLE = ("resid_post", "attn_out", "mlp_out", "mlp_act", "resid_mid")
BY_HEAD = ("z", "q", "k", "v", "pattern")
SITES = (*WHOLE, *BY_HEAD)


@dataclass(frozen=True)
class Slot:
    """Tokens whose values are put in together.

    Attributes:
        columns: of the run that is put into, ascending.
        of: of the run that values are taken from.
    """

    columns: tuple[int, ...]
    of: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Scores of a grid; NaN where there is no such cell.

    Attributes:
        whole: [site, layer, slot, prompt].
        by_head: [site, layer, head, slot, prompt].
    """

    whole: Tensor
    by_head: Tensor


@dataclass(frozen=True)
class Grid:
    """Which sites are patched, and where they exist.

    Attributes:
        whole: sites that are patched as a whole.
        by_head: sites whose heads are patched one by one.
        layers: of all of them.
        n_heads: how many heads the model has.
        n_key_heads: how many its keys and values have.
    """

    whole: tuple[str, ...]
    by_head: tuple[str, ...]
    layers: tuple[int, ...]
    n_heads: int
    n_key_heads: int

    def heads_of(self, name: str) -> int:
        """How many heads a site has."""
        return self.n_key_heads if name in ("k", "v") else self.n_heads

    def points(self) -> Iterator[tuple[Site, int | None] | None]:
        """Site and head of each point: whole sites by layer, then the others by layer and head.

        None where there is no such point.
        """
        for name in self.whole:
            for layer in self.layers:
                exists = layer > 0 or name == "resid_post"
                yield (Site(name, layer), None) if exists else None
        for name in self.by_head:
            for layer in self.layers:
                for head in range(self.n_heads):
                    exists = layer > 0 and head < self.heads_of(name)
                    yield (Site(name, layer), head) if exists else None

    def cells(
        self, slots: Sequence[Slot], make: Callable[[Site, int | None, Slot], Cell]
    ) -> list[Cell]:
        """What `make` puts in at every point and slot; empty where there is none."""
        return [
            make(*point, slot) if point is not None and slot.columns else ()
            for point in self.points()
            for slot in slots
        ]

    def scores(self, cells: Sequence[Cell], patched: Tensor, slots: int) -> Scores:
        """The grid of the cells' scores [cells, prompts]."""
        missing = torch.tensor([not cell for cell in cells], device=patched.device)
        found = patched.masked_fill(missing[:, None], torch.nan).cpu()
        split = len(self.whole) * len(self.layers) * slots
        prompts, layers = patched.shape[1], len(self.layers)
        by_head = (len(self.by_head), layers, self.n_heads, slots, prompts)
        return Scores(
            found[:split].view(len(self.whole), layers, slots, prompts),
            found[split:].view(by_head),
        )


def put_in(site: Site, head: int | None, slot: Slot) -> Cell:
    """Another run's values of a site, or of one head of it, at a slot."""
    heads = None if head is None else (head,)
    of = None if slot.of == slot.columns else slot.of
    return (Put(site, slot.columns, "source", heads, of),)

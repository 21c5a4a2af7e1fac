"""Exact effects of many cells at the least cost: no column before a cell, no block below it, nothing twice.

1. Cells that begin at the same column go through the blocks together. Columns before it are the
   base run's, so that only their keys and values are needed, which the base run has left.
2. A cell joins at the block that it is put in. There, what is put in behind attention changes its
   own columns alone, so that only those are run.
3. Cells that are equal up to a block share their rows up to it (windows with one left edge).
4. In the first block after that, queries, keys and values of the columns behind it are the base run's.
5. Only tokens of which somebody reads what they give pass through attention's output map and the
   MLP: in the last block those of the last columns, in others those whose output is not put in.
6. Where what is put in are the other run's states of every column in which the two differ up to some
   column, the run is the other one up to there, whose keys and values serve in place of those columns.

A state put in at column t after block l so costs at most (columns from t on) x (blocks above l), and the
whole grid of T columns and L layers S T (T + 1) / 2 x L (L - 1) / 2 block-tokens where a run for
each cell costs S T L x T L.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probes.causal.cells import LOCAL, Cell, Put, Table, begin_of, until
from probes.causal.runs import Run
from workbench.models.blocks import Blocks, partly, reused
from workbench.models.hooks import Tap
from workbench.models.sites import Site

__all__ = ["cost", "sweep"]


def sweep(
    blocks: Blocks,
    base: Run,
    tables: Mapping[str, Table],
    cells: Sequence[Cell],
    *,
    source: Run | None = None,
    same: int = 0,
    tail: int = 1,
    limit: int = 1024,
) -> Iterator[tuple[list[int], Tensor]]:
    """The last columns' final states of the base run with each cell put in.

    Args:
        base: the run that cells are put into.
        tables: what is put in, by name, of as many rows as the base run or one.
        cells: not empty; what cannot change the last columns left out (see `effective`).
        source: the run whose values the table "source" holds, of as many rows as the base run.
        same: how many of its first columns are the base run's.
        tail: how many of the last columns are wanted.
        limit: tokens in a block's call; more are split.

    Yields:
        Indices of cells, and their states after the last block [cells, rows, tail, d].
    """
    behind = same if source is not None and blocks.apart else -1
    for (begin, as_source), indices in _groups(cells, behind, blocks.width - tail).items():
        before = source if source is not None and as_source else base
        wave = _Wave(blocks, base, before, tables, begin if blocks.apart else 0, tail, limit)
        yield indices, wave.run([cells[i] for i in indices])


def cost(cells: Sequence[Cell], *, n_layers: int, width: int, same: int = -1, tail: int = 1) -> int:
    """Block-tokens of a sweep for each row of its base run.

    Args:
        cells: as for `sweep`.
        same: as for `sweep`; -1 where it is given no run of the source.
    """
    shape = _Shape(width)
    total = 0
    for (begin, _), indices in _groups(cells, same, width - tail).items():
        for layer in range(n_layers + 1):
            histories = _histories([cells[i] for i in indices], layer)
            for (first, end), those in _by_columns(layer, histories, begin, shape).items():
                total += (end - first) * len(those)
    return total


@dataclass(frozen=True)
class _Shape:
    """What `_by_columns` asks of blocks, without blocks."""

    width: int
    apart: bool = True


def _groups(cells: Sequence[Cell], same: int, unread: int) -> dict[tuple[int, bool], list[int]]:
    """Indices of cells, by the column at which they begin and whether they are the source below it."""
    found: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for index, cell in enumerate(cells):
        behind = _source_up_to(cell, same)
        as_source = 0 < behind <= unread
        found[behind if as_source else begin_of(cell), as_source].append(index)
    return dict(sorted(found.items()))


def _source_up_to(cell: Cell, same: int) -> int:
    """Below which column the cell's run is the source's from where it is put in; 0 where nowhere.

    Args:
        same: how many of the source's first columns are the base run's; -1 where that is of no use.
    """
    first, *more = cell
    whole = first.site.name == "resid_post" and first.table == "source" and first.of is None
    end = first.columns[-1] + 1
    joined = first.columns == tuple(range(first.columns[0], end))
    return end if whole and joined and not more and first.columns[0] <= same else 0


def _histories(cells: Sequence[Cell], layer: int) -> list[Cell]:
    """What has been put in up to `layer`, each history once."""
    return list(dict.fromkeys(filter(None, (until(cell, layer) for cell in cells))))


def _by_columns(
    layer: int, histories: Sequence[Cell], begin: int, shape: Blocks | _Shape
) -> dict[tuple[int, int], list[Cell]]:
    """The histories that block `layer` runs for, by the columns (first, end) that it has to run."""
    whole = (begin, shape.width)
    found: dict[tuple[int, int], list[Cell]] = defaultdict(list)
    for history in histories:
        inside = [put for put in _at(history, layer) if put.site.name != "resid_post"]
        if until(history, layer - 1):
            found[whole].append(history)
        elif inside and shape.apart and all(put.site.name in LOCAL for put in inside):
            ends = [column for put in inside for column in put.columns]
            found[min(ends), max(ends) + 1].append(history)
        elif inside:
            found[whole].append(history)
    return found


class _Wave:
    """Cells that begin at one column, on their way through the blocks."""

    def __init__(
        self,
        blocks: Blocks,
        base: Run,
        before: Run,
        tables: Mapping[str, Table],
        begin: int,
        tail: int,
        limit: int,
    ) -> None:
        """`before` has the keys and values of the columns before `begin`, behind what is put in."""
        self.blocks, self.base, self.before, self.tables = blocks, base, before, tables
        self.begin, self.tail, self.limit = begin, tail, limit
        self.rows = len(base.states[0])

    def run(self, cells: Sequence[Cell]) -> Tensor:
        """Final states, [cells, rows, tail, d]."""
        states: dict[Cell, Tensor] = {}
        for layer in range(self.blocks.anatomy.n_layers + 1):
            states = self._stepped(layer, _histories(cells, layer), states)
        return torch.stack([states[cell][:, -self.tail :] for cell in cells])

    def _stepped(
        self, layer: int, histories: Sequence[Cell], states: Mapping[Cell, Tensor]
    ) -> dict[Cell, Tensor]:
        """States [rows, columns, d] after `layer`, by what has been put in up to it."""
        after: dict[Cell, Tensor] = {}
        for (first, end), those in _by_columns(layer, histories, self.begin, self.blocks).items():
            size = max(1, self.limit // (self.rows * (end - first)))
            for start in range(0, len(those), size):
                after |= self._run(layer, first, end, those[start : start + size], states)
        own = self.base.states[layer][:, self.begin :]
        for history in histories:
            found = after.get(history, own)
            after[history] = self._with_stream(found, _at(history, layer, "resid_post"))
        return after

    def _run(
        self,
        layer: int,
        first: int,
        end: int,
        histories: Sequence[Cell],
        states: Mapping[Cell, Tensor],
    ) -> dict[Cell, Tensor]:
        """Block `layer` on some columns of some histories; other columns are the base run's."""
        whole = (first, end) == (self.begin, self.blocks.width)
        below = self.base.states[layer - 1][:, first:end]
        # Those that have just joined come last: their later columns are still the base run's.
        histories = sorted(histories, key=lambda history: self._joined(history, layer))
        parents = [states.get(until(history, layer - 1), below) for history in histories]
        taps = self._taps(layer, first, histories)
        with (
            self._known(layer, histories) if whole else nullcontext(),
            partly(
                self.blocks.anatomy,
                layer,
                [site.name for site, _ in taps],
                attention=self._read(layer, first, end, histories, "attn_out"),
                mlp=self._read(layer, first, end, histories, "mlp_out"),
            ),
        ):
            found, _ = self.blocks.run(
                layer,
                torch.cat(parents),
                first=first,
                before=(self.before if whole else self.base).before(layer, first),
                taps=taps,
            )
        parts = found.view(len(histories), self.rows, end - first, -1)
        return {
            history: part if whole else self._whole(layer, first, part)
            for history, part in zip(histories, parts, strict=True)
        }

    def _read(
        self, layer: int, first: int, end: int, histories: Sequence[Cell], output: str
    ) -> Tensor:
        """[rows, columns] of which tokens the output of the part that `output` is the site of is read."""
        read = torch.ones(len(histories), self.rows, end - first, dtype=torch.bool)
        if layer == self.blocks.anatomy.n_layers:
            read[:, :, : max(0, self.blocks.width - self.tail - first)] = False
        for number, history in enumerate(histories):
            for put in _at(history, layer):
                if put.site.name in (output, "resid_post"):
                    read[number, :, torch.tensor(put.columns) - first] = False
        return read.flatten(0, 1).to(self.base.states[0].device)

    def _joined(self, history: Cell, layer: int) -> bool:
        """Whether a history was first put in right below block `layer`."""
        return bool(until(history, layer - 1)) and not until(history, layer - 2)

    def _known(self, layer: int, histories: Sequence[Cell]) -> AbstractContextManager[None]:
        """Where queries, keys and values of those that have just joined are known, they are reused."""
        new = [until(h, layer - 1) for h in histories if self._joined(h, layer)]
        base = self.base.projected[layer - 1]
        if not new or not base:
            return nullcontext()
        changed = [column for history in new for put in history for column in put.columns]
        end = max(self.begin, 1 + max(changed))
        known = {m: _tiled(values[:, self.begin :], len(new)) for m, values in base.items()}
        return reused(known, end - self.begin)

    def _whole(self, layer: int, first: int, part: Tensor) -> Tensor:
        """States of every column of the wave, of which the block has run some."""
        states = self.base.states[layer][:, self.begin :].clone()
        states[:, first - self.begin : first - self.begin + part.shape[1]] = part
        return states

    def _taps(self, layer: int, first: int, histories: Sequence[Cell]) -> list[tuple[Site, Tap]]:
        """What puts values in at the sites inside block `layer`, each history into its own rows."""
        found: dict[Site, list[tuple[int, Put]]] = defaultdict(list)
        for number, history in enumerate(histories):
            for put in _at(history, layer):
                if put.site.name != "resid_post":
                    found[put.site].append((number, put))
        return [(site, self._tap(first, puts)) for site, puts in found.items()]

    def _tap(self, first: int, puts: Sequence[tuple[int, Put]]) -> Tap:
        def tap(value: Tensor) -> Tensor:
            value = value.clone()
            for number, put in puts:
                rows = value[number * self.rows : (number + 1) * self.rows]
                self._place(rows, put, first)
            return value

        return tap

    def _with_stream(self, states: Tensor, puts: Sequence[Put]) -> Tensor:
        """States with what is put into the residual stream behind the block."""
        if puts:
            states = states.clone()
        for put in puts:
            if put.columns[-1] < self.begin:  # they are those of the run before
                continue
            self._place(states, put, self.begin)
        return states

    def _place(self, values: Tensor, put: Put, first: int) -> None:
        """Write a put into `values` [rows, columns from `first` on, ...]."""
        new = self.tables[put.table][put.site].to(values)
        new = new[:, put.of or put.columns]
        where: Any = torch.tensor(put.columns, device=values.device) - first
        if put.heads is None:
            values[:, where] = new
            return
        heads = torch.tensor(put.heads, device=values.device)
        values[:, where[:, None], heads] = new[:, :, heads]


def _at(cell: Cell, layer: int, name: str | None = None) -> list[Put]:
    """What a cell puts in at `layer`, of one site where it is named."""
    return [put for put in cell if put.site.layer == layer and name in (None, put.site.name)]


def _tiled(values: Tensor, times: int) -> Tensor:
    """[times * rows, ...], the rows after each other."""
    return values.repeat(times, *[1] * (values.dim() - 1))

"""Effects of cells on any engine: a forward pass a cell, restarted below what is put in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from probes.causal.cells import Cell, Put, Table
from workbench.models.batch import Batch, Places
from workbench.models.captures import Read
from workbench.models.edits import Edit
from workbench.models.protocol import Model
from workbench.models.sites import Site

__all__ = ["below", "restarts", "whole_table"]


def restarts(
    model: Model,
    batch: Batch,
    states: Sequence[Tensor],
    tables: Mapping[str, Table],
    cells: Sequence[Cell],
    *,
    tail: int = 1,
    whole: bool = False,
) -> Iterator[Tensor]:
    """Logits [rows, tail, vocabulary] at the last columns, cell by cell.

    Args:
        batch: rows of equal length.
        states: [rows, width, d] of the base run after each layer 0..L.
        tables: what is put in, by name, of as many rows or one.
        cells: none of them empty.
        whole: run every block in every pass, as tools without restarts do.
    """
    for cell in cells:
        layer = 0 if whole else below(cell)
        edits = [_edit(put, tables[put.table]) for put in cell if _in_pass(put, layer)]
        start = states[layer].clone()
        for put in cell:
            if not _in_pass(put, layer):
                _write(start, put, tables[put.table])
        read = Read("logits", range(batch.ids.shape[1] - tail, batch.ids.shape[1]))
        (found,) = model.read(batch, [read], edits=edits, start=(layer, start))
        yield found["logits", model.n_layers].view(len(batch), tail, -1)


def whole_table(model: Model, batch: Batch, embedded: Tensor, names: Sequence[str]) -> Table:
    """Values [rows, width, ...] of sites at every layer, of rows run from the states at layer 0."""
    (found,) = model.read(batch, [Read(tuple(names))], start=(0, embedded))
    shape = batch.ids.shape
    return {site: value.view(*shape, *value.shape[1:]) for site, value in found.values.items()}


def below(cell: Cell) -> int:
    """The layer from whose states a pass can start: whatever is put in lies above, or in them."""
    first = cell[0].site
    return first.layer if first.name == "resid_post" else first.layer - 1


def _in_pass(put: Put, layer: int) -> bool:
    return put.site != Site("resid_post", layer)


def _edit(put: Put, table: Table) -> Edit:
    def change(old: Tensor, where: Places) -> Tensor:
        rows = torch.unique(where.row)
        values = old.view(len(rows), len(put.columns), *old.shape[1:]).clone()
        _assign(values, put, table)
        return values.flatten(0, 1)

    return Edit(put.site, change, put.columns)


def _write(states: Tensor, put: Put, table: Table) -> None:
    columns = torch.tensor(put.columns, device=states.device)
    values = states[:, columns]
    _assign(values, put, table)
    states[:, columns] = values


def _assign(values: Tensor, put: Put, table: Table) -> None:
    """Values [rows, columns of the put, ...] with what is put in."""
    new = table[put.site].to(values)[:, list(put.of or put.columns)]
    if put.heads is None:
        values[:] = new
        return
    heads = torch.tensor(put.heads, device=values.device)
    values[:, :, heads] = new[:, :, heads]

"""Cells: what is put into a run, and where; and what of it can change anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from workbench.models.sites import Site

__all__ = ["LOCAL", "Cell", "Put", "Table", "begin_of", "cell_of", "effective", "until"]

LOCAL = ("z", "attn_out", "mlp_act", "mlp_out")
"""Sites behind a block's attention, whose value at a column acts on that column alone in its block."""

ORDER = (
    *("q", "k", "v", "pattern"),
    *("z", "attn_out", "resid_mid", "mlp_act", "mlp_out"),
    "resid_post",
)
READ_BY_OTHERS = ("k", "v")
"""Sites whose value at a column acts on later columns within its own block."""

Table = Mapping[Site, Tensor]
"""Values to put in, [rows, width, ...] by site; one row serves all."""


@dataclass(frozen=True)
class Put:
    """Values of a table put in at a site.

    Attributes:
        site: one of `LOCAL`, layer 1..L, or resid_post, layer 0..L; by restarts also resid_mid, and
            q, k, v or pattern, which are inside attention.
        columns: where, ascending.
        table: the name of the table.
        heads: of sites that have them, those that are put in, counted from 0; None for all.
        of: the table's columns, in the order of `columns`; the same where None.
    """

    site: Site
    columns: tuple[int, ...]
    table: str = "source"
    heads: tuple[int, ...] | None = None
    of: tuple[int, ...] | None = None


Cell = tuple[Put, ...]
"""Everything that is put into one run, in the order of the network."""


def cell_of(puts: Sequence[Put]) -> Cell:
    """The puts in the order of the network, so that equal beginnings can be shared."""
    return tuple(sorted(puts, key=lambda put: (put.site.layer, ORDER.index(put.site.name))))


def until(cell: Cell, layer: int) -> Cell:
    """What of a cell is put in up to `layer`."""
    return tuple(put for put in cell if put.site.layer <= layer)


def begin_of(cell: Cell) -> int:
    """The first column that a cell touches."""
    return min(put.columns[0] for put in cell)


def effective(
    cell: Cell, *, n_layers: int, width: int, tail: int, same: Mapping[str, int] | None = None
) -> Cell:
    """What of a cell can change the last `tail` columns; empty where nothing can.

    In the last block a column that is not read acts on nothing; a table that is the run's own up to
    some column changes nothing below it; and putting a run's own values in changes nothing before
    something else has been.

    Args:
        same: by table, how many of its first columns are those of the run that cells are put into.
    """
    same = {"base": width} if same is None else {"base": width, **same}
    unread = width - tail
    kept = [_narrowed(put, unread if _last_alone(put, n_layers) else 0) for put in cell]
    kept = [put for put in kept if put.columns]
    first = next((i for i, put in enumerate(kept) if _acts(put, same)), len(kept))
    late = [_narrowed(put, 0 if put.table == "base" else _same(put, same)) for put in kept[first:]]
    return tuple(put for put in late if put.columns)


def _same(put: Put, same: Mapping[str, int]) -> int:
    """How many of the first columns a put leaves as they are; none where it takes other columns."""
    return same.get(put.table, 0) if put.of is None else 0


def _last_alone(put: Put, n_layers: int) -> bool:
    """Whether only the columns that are read can make it count."""
    return put.site.layer == n_layers and put.site.name not in READ_BY_OTHERS


def _acts(put: Put, same: Mapping[str, int]) -> bool:
    return put.columns[-1] >= _same(put, same)


def _narrowed(put: Put, first: int) -> Put:
    """The put at its columns from `first` on."""
    inside = [i for i, column in enumerate(put.columns) if column >= first]
    if len(inside) == len(put.columns):
        return put
    of = None if put.of is None else tuple(put.of[i] for i in inside)
    return replace(put, columns=tuple(put.columns[i] for i in inside), of=of)

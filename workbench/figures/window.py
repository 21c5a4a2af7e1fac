"""Which rows and columns of a large reading are drawn with text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["COLUMNS", "ROWS", "page", "rows"]

ROWS = 25
COLUMNS = 16


def rows(layers: Sequence[int], keep: int, limit: int = ROWS) -> list[int]:
    """At most about `limit` of the layers at an even stride, lowest first.

    The first layer, the last one and `keep` (the selected layer) are always among them, so that
    a selection never falls between two rows.

    >>> rows(range(49), keep=33)[15:19]
    [30, 32, 33, 34]
    """
    stride = -(-len(layers) // limit)
    chosen = {layers[index] for index in range(len(layers) - 1, -1, -stride)}
    return sorted(chosen | {layers[0], keep})


def page(count: int, position: int, size: int = COLUMNS) -> range:
    """The columns of the page that holds `position`, of `count` columns cut into pages.

    The last page is filled up from the one before it, so that every page is full where it can be.

    >>> page(40, 20), page(40, 39)
    (range(16, 32), range(24, 40))
    """
    start = min(position - position % size, max(count - size, 0))
    return range(start, min(start + size, count))

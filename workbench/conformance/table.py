"""Cells as tables: one layout for the terminal, for the documentation and for `doctor`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from workbench.conformance.cells import Cell, Finding
from workbench.conformance.operations import OPERATIONS
from workbench.conformance.run import CLEAN
from workbench.models.sites import SITES

__all__ = ["Notes", "examined", "grid", "largest_share", "summary", "tables"]

BY_SITE = ("capture", "same", "edit", "grad")
WHOLE = (*(o.name for o in OPERATIONS if o.name not in BY_SITE), CLEAN)


class Notes:
    """Footnotes of a document: each message once, numbered as they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, message: str) -> str:
        """What stands in a table for `message`."""
        return f"[^{self._numbers.setdefault(message, len(self._numbers) + 1)}]"

    def lines(self) -> list[str]:
        """The messages, a line each."""
        return [f"[^{number}]: {message}" for message, number in self._numbers.items()]


def tables(cells: Sequence[Cell], row: str, notes: Notes) -> list[str]:
    """Lines of one table for each operation by site, and one for the others.

    Args:
        row: the field of a cell that makes the rows, such as "family".
        notes: takes refusals and failures.
    """
    lines: list[str] = []
    for operation in BY_SITE:
        chosen = [cell for cell in cells if cell.operation == operation]
        lines += [f"**{operation}**", "", *grid(chosen, row, "site", SITES, notes), ""]
    chosen = [cell for cell in cells if cell.operation in WHOLE]
    return [*lines, "**the rest**", "", *grid(chosen, row, "operation", WHOLE, notes)]


def grid(
    cells: Sequence[Cell], row: str, column: str, columns: Sequence[str], notes: Notes
) -> list[str]:
    """Lines of a Markdown table: the largest error of the cells that share a place in it.

    Args:
        cells: what it shows.
        row, column: the fields of a cell that say where it stands.
        columns: every column there can be, in order; those without a cell are left out.
        notes: takes refusals and failures.
    """
    names = list(dict.fromkeys(getattr(cell, row) for cell in cells))
    shown = [name for name in columns if any(getattr(cell, column) == name for cell in cells)]
    lines = [[row, *shown]]
    for name in names:
        own = [cell for cell in cells if getattr(cell, row) == name]
        at = [[cell for cell in own if getattr(cell, column) == where] for where in shown]
        lines.append([name, *(_text(found, notes) for found in at)])
    return _aligned(lines)


def _text(cells: Sequence[Cell], notes: Notes) -> str:
    if not cells:
        return "-"
    failed = [cell for cell in cells if cell.verdict == "fails"]
    if failed:
        return "FAILS" + _marks((_reason(cell) for cell in failed), notes)
    errors = [cell.error for cell in cells if cell.error is not None]
    refusals = (cell.refusal for cell in cells if cell.refusal is not None)
    return (_number(max(errors)) if errors else "") + _marks(refusals, notes)


def _reason(cell: Cell) -> str:
    if cell.failure is not None:
        return cell.failure
    return f"error {cell.error:.2g}, tolerance {cell.tolerance:.2g}"


def _marks(messages: Iterable[str], notes: Notes) -> str:
    return "".join(notes.mark(message) for message in dict.fromkeys(messages))


def _number(error: float) -> str:
    return f"{error:.0e}" if error else "0"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [head, rule, *body]


def examined(cells: Sequence[Cell]) -> list[str]:
    """Lines about one model: sites by operation, the other operations, refusals, and a summary."""
    notes = Notes()
    by_site = [cell for cell in cells if cell.operation in BY_SITE]
    rest = [cell for cell in cells if cell.operation in WHOLE]
    return [
        "Absolute errors against Hugging Face, at the layer where most of what rounding allows is used;",
        "0 is exact, a mark is a refusal or a failure, - is nothing to compare.",
        "",
        *grid(by_site, "site", "operation", BY_SITE, notes),
        "",
        *grid(rest, "family", "operation", WHOLE, notes),
        "",
        *notes.lines(),
        f"{summary(cells)}; the largest error is {largest_share(cells):.2f} of what rounding allows",
    ]


def largest_share(cells: Sequence[Cell]) -> float:
    """The error that comes closest to its tolerance, as a share of it."""
    measured = [Finding(c.error, c.tolerance) for c in cells if c.error is not None and c.tolerance]
    return max((finding.share for finding in measured), default=0.0)


def summary(cells: Sequence[Cell]) -> str:
    """How many cells hold, are refused and fail."""
    count = {v: sum(cell.verdict == v for cell in cells) for v in ("holds", "refused", "fails")}
    return f"{len(cells)} cells: {count['holds']} hold, {count['refused']} refused, {count['fails']} fail"

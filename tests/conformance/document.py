"""The suite's table as a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

from workbench.conformance import Cell
from workbench.conformance.operations import OPERATIONS
from workbench.conformance.oracle import stack_of
from workbench.conformance.table import Notes, largest_share, summary, tables

PACKAGES = ("torch", "transformers", "transformer-lens", "nnsight")
SHOWN = "float32"


def document(cells: Sequence[Cell]) -> str:
    """The page: a head that says how it was made, a summary, and the tables of one dtype."""
    notes = Notes()
    lines = [*_head(cells), *_shares(cells)]
    dtype = SHOWN if any(cell.dtype == SHOWN for cell in cells) else cells[0].dtype
    for engine in dict.fromkeys(cell.engine for cell in cells):
        chosen = [_by_stack(c) for c in cells if (c.engine, c.dtype) == (engine, dtype)]
        lines += [f"## {engine}, {dtype}", "", *tables(chosen, "family", notes), ""]
    return "\n".join([*lines, *notes.lines()])


def _by_stack(cell: Cell) -> Cell:
    """The cell, of an encoder's site in a row of its own."""
    prefix, site = stack_of(cell.site)
    return replace(cell, family=f"{cell.family}, encoder", site=site) if prefix else cell


def _head(cells: Sequence[Cell]) -> list[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return [
        "# What holds on which model",
        "",
        "Written by `make conformance`, not by hand: tiny random models of every family, on every engine,",
        "against plain Hugging Face in eager attention (for Falcon with ALiBi in its fused one: the eager",
        f"code adds ALiBi twice). {versions}.",
        "",
        f"{summary(cells)}. A number is the absolute error of all places and",
        "both paddings, at the layer where most of what rounding allows is used; 0 is exact. A mark is a",
        "refusal, by the message that a user sees; - is nothing to compare. How tolerances are made:",
        "[tolerance.py](../workbench/conformance/tolerance.py).",
        "",
        *(f"- **{operation.name}**: {operation.meaning}" for operation in OPERATIONS),
        "- **clean**: after all calls, and two that an exception ended, the model is as it was",
        "",
    ]


def _shares(cells: Sequence[Cell]) -> list[str]:
    """The largest error as a share of what rounding allows, for each engine and dtype."""
    keys = dict.fromkeys((cell.engine, cell.dtype) for cell in cells)
    lines = ["| engine | dtype | cells | largest error / tolerance |", "|---|---|---|---|"]
    for engine, dtype in keys:
        chosen = [cell for cell in cells if (cell.engine, cell.dtype) == (engine, dtype)]
        share = largest_share(chosen)
        lines.append(f"| {engine} | {dtype} | {summary(chosen)} | {share:.2f} |")
    return [*lines, ""]

"""What the command line prints and writes."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from workbench.errors import ResultError

if TYPE_CHECKING:
    from workbench.passes import Progress
    from workbench.results import Result

__all__ = ["print_result", "save_result", "show_progress", "writable"]

FIGURES = (".html", ".png", ".svg", ".pdf")
TABLES = (".nc", ".parquet", ".csv", ".json")


def show_progress(progress: Progress) -> None:
    """One line on stderr, where a person looks at it."""
    if not sys.stderr.isatty():
        return
    left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
    end = "\n" if progress.done == progress.total else ""
    sys.stderr.write(f"\r{progress.done} of {progress.total} tokens{left}   {end}")
    sys.stderr.flush()


def writable(path: Path) -> None:
    """Refuse a file that could not be written, before any work.

    Raises:
        ResultError: an unknown suffix, or no such folder.
    """
    if path.suffix not in FIGURES + TABLES:
        raise ResultError(f"{path}: expected a suffix of {', '.join(TABLES + FIGURES)}")
    if not path.parent.is_dir():
        raise ResultError(f"no folder {path.parent}: make it first")


def save_result(result: Result, path: Path) -> None:
    """Numbers or figure, by the suffix."""
    if path.suffix in TABLES:
        result.save(path)
        return
    from workbench.figures import save_figure

    save_figure(result.plot(), path)


def print_result(result: Result) -> None:
    """A plain table; every number is in --json and --out."""
    frame = result.to_frame().dropna(axis="columns", how="all")
    shown = frame.map(_short)
    typer.echo(repr(result))
    typer.echo(shown.to_string(index=False, max_colwidth=60))


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(f"{pair['token']!r} {math.exp(pair['score']):.2f}" for pair in value[:3])
    if isinstance(value, str):
        return repr(value)
    return f"{value:.3g}" if isinstance(value, float) else value

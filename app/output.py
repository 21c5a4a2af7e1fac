"""What the command line prints and writes."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from workbench.passes import Progress
    from workbench.shown import Shown

__all__ = ["print_remarks", "print_table", "show_progress"]

LOGPROBS = "top"  # the column of rows whose lists of pairs are of a token and its log-probability


def show_progress(progress: Progress) -> None:
    """One line on stderr, where a person looks at it."""
    if not sys.stderr.isatty():
        return
    left = "" if progress.seconds_left is None else f", {progress.seconds_left:.0f} s left"
    end = "\n" if progress.done == progress.total else ""
    sys.stderr.write(f"\r{progress.done} of {progress.total} tokens{left}   {end}")
    sys.stderr.flush()


def print_table(result: Shown) -> None:
    """A plain table; every number is in --json and --out."""
    frame = result.to_frame().dropna(axis="columns", how="all")
    shown = frame.map(_short)
    if LOGPROBS in frame:
        shown = shown.assign(**{LOGPROBS: frame[LOGPROBS].map(_chances)})
    typer.echo(repr(result))
    typer.echo(shown.to_string(index=False, max_colwidth=60))
    print_remarks(result)


def print_remarks(result: Shown, *, err: bool = False) -> None:
    """What a result says of how far its numbers can be trusted; on stderr beside data on stdout."""
    for remark in _remarks(result):
        typer.echo(remark, err=err)


def _remarks(result: Shown) -> list[str]:
    """What a result says of how far its numbers can be trusted."""
    return list(getattr(result, "provenance", {}).get("remarks", []))


def _chances(value: Any) -> Any:
    """The best few tokens with their probabilities; other instruments' `top` as any value."""
    if not isinstance(value, list):
        return _short(value)
    return " ".join(f"{pair['token']!r} {math.exp(pair['score']):.2f}" for pair in value[:3])


def _part(value: Any) -> str:
    """A token with its score, or a number of a list."""
    if isinstance(value, dict):
        return f"{value['token']!r} {value['score']:.3g}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _short(value: Any) -> Any:
    if isinstance(value, list):
        pairs = bool(value) and isinstance(value[0], dict)  # the best few tokens
        return " ".join(map(_part, value[:3] if pairs else value))
    if isinstance(value, str):
        return repr(value)
    return f"{value:.3g}" if isinstance(value, float) else value

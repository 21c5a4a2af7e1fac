"""`workbench compare`: a base against a fine-tuned model, or against itself with an adapter."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

import workbench as wb
from app.output import print_table
from workbench.errors import ModelError, ResultError

__all__ = ["checked_folder", "hand_over", "pair"]


def pair(
    load: Callable[..., wb.Engine], base: str, tuned: str | None, adapter: str | None
) -> tuple[wb.Engine, wb.Engine]:
    """The two models; one set of weights where the second is the first with an adapter.

    Raises:
        ModelError: neither a second model nor an adapter is given, or both are.
    """
    if (tuned is None) == (adapter is None):
        raise ModelError("expected either a second model or --adapter FOLDER")
    if adapter is None:
        return load(base), load(tuned)
    model = load(base, adapter=adapter)
    return model.with_adapter(None), model


def checked_folder(out: Path | None) -> None:
    """Refuse a folder that cannot be made.

    Raises:
        ResultError: it is there already, or the one that it should stand in is not.
    """
    if out is not None and out.exists():
        raise ResultError(f"{out} is there already: expected a new folder")
    if out is not None and not out.absolute().parent.is_dir():
        raise ResultError(f"no folder {out.parent}: make it first")


def hand_over(found: Sequence[wb.Comparison], out: Path | None, *, as_json: bool) -> None:
    """Save rows and figures to the folder `out`, print the rows as JSON, or print tables."""
    if out is not None:
        _save(found, out)
    if as_json:
        rows = [{"instrument": one.instrument} | row for one in found for row in one.rows()]
        typer.echo(json.dumps(rows, ensure_ascii=False, allow_nan=False))
    elif out is None:
        for one in found:
            print_table(one)


def _save(found: Sequence[wb.Comparison], out: Path) -> None:
    with TemporaryDirectory(dir=out.absolute().parent, prefix=".unfinished-") as folder:
        unfinished = Path(folder) / out.name
        unfinished.mkdir()
        for one in found:
            for suffix in (".parquet", ".html"):
                one.save(unfinished / f"{one.instrument}{suffix}")
        unfinished.rename(out)

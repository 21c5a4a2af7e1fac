"""What has tidy rows and a figure: its table, its files, and how a notebook shows it."""

from __future__ import annotations

import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.errors import ResultError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["WRITERS", "Shown", "Writers", "destination"]

TABLE_ROWS = 20

Writers = Mapping[str, Callable[[Any, Path], Any]]
"""What writes a file, by its suffix."""


def _write_json(shown: Shown, path: Path) -> None:
    text = json.dumps(shown.rows(), ensure_ascii=False, allow_nan=False)
    path.write_text(text, encoding="utf-8")


def _write_figure(shown: Shown, path: Path) -> None:
    from workbench.figures import save_figure

    save_figure(shown.plot(), path)


WRITERS: Writers = {
    ".parquet": lambda shown, path: shown.to_frame().to_parquet(path),
    ".csv": lambda shown, path: shown.to_frame().to_csv(path, index=False),
    ".json": _write_json,
    **dict.fromkeys((".html", ".png", ".svg", ".pdf"), _write_figure),
}


class Shown(ABC):
    """Rows and a figure, and what follows from them.

    Attributes:
        writers: what writes its files, by their suffixes.
    """

    writers: ClassVar[Writers] = WRITERS

    @abstractmethod
    def plot(self) -> go.Figure:
        """The figure."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows."""

    def to_frame(self) -> pd.DataFrame:
        """The tidy rows as a pandas DataFrame; (token, score) pairs become dicts, as Parquet needs."""
        import pandas as pd

        rows = [{key: _structs(value) for key, value in row.items()} for row in self.rows()]
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> Path:
        """Save by suffix: tidy rows (.parquet, .csv, .json) or the figure (.html, .png, .svg, .pdf).

        A result is saved whole as .nc, which alone can be loaded back. For other than the default
        figure or size, see `plot` and `workbench.figures.save_figure`. Every file can be read
        without this project, and appears whole or not at all.

        Raises:
            ResultError: another suffix, or a folder that is not there.
        """
        path = destination(path, self.writers)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as folder:
            unfinished = Path(folder) / path.name
            self.writers[path.suffix](self, unfinished)
            unfinished.replace(path)
        return path

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Plotly's own MIME type and a plain table: nothing that loads from a network."""
        from workbench.figures import graph_config

        figure: dict[str, Any] = json.loads(self.plot().to_json())
        figure["config"] = graph_config()
        table = self.to_frame().head(TABLE_ROWS).to_html(escape=True, index=False)
        return {
            "application/vnd.plotly.v1+json": figure,
            "text/html": table,
            "text/plain": repr(self),
        }


def destination(path: str | Path, suffixes: Iterable[str]) -> Path:
    """`path`, if a file of one of these suffixes could be saved there.

    Raises:
        ResultError: a suffix that says nothing, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise ResultError(f"{path}: expected a suffix of {', '.join(suffixes)}")
    if not path.parent.is_dir():
        raise ResultError(f"no folder {path.parent}: make it first")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ResultError(
            f"{path} cannot be written: it is a folder, or stands in one that is closed"
        )
    return path


def _structs(value: Any) -> Any:
    """[[token, score], ...] -> [{"token": ..., "score": ...}, ...]; anything else as it is."""
    if not (isinstance(value, list) and all(isinstance(pair, list) for pair in value)):
        return value
    return [{"token": token, "score": score} for token, score in value]

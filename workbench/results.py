"""Results: named-axis numbers that know where they come from, and how to be drawn and cited."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ResultError
from workbench.instrument import find

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import xarray as xr

__all__ = ["Result", "checked_destination", "plot_layers"]

TABLE_ROWS = 20


class Result:
    """What an instrument measured.

    Attributes:
        data: dataset with axes in the field's words; each variable has its unit in
            `attrs["unit"]`. The axis `place` stacks (prompt, position), since prompts differ in
            length; `prompt`, `position` and `token` are its coordinates.
    """

    def __init__(self, data: xr.Dataset) -> None:
        for needed in ("instrument", "provenance"):
            if needed not in data.attrs:
                raise ResultError(
                    f"no {needed!r} in the dataset's attributes: this is no saved result"
                )
        self.data = data

    @classmethod
    def of(cls, data: xr.Dataset, *, instrument: str, provenance: Mapping[str, Any]) -> Result:
        """A result of `data` with what is known of its making."""
        attrs = {"instrument": instrument, "provenance": json.dumps(provenance, default=str)}
        return cls(data.assign_attrs(attrs))

    @property
    def instrument(self) -> str:
        """Name of the instrument."""
        return str(self.data.attrs["instrument"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Model, weights' hash, settings, exact token ids, versions."""
        found: dict[str, Any] = json.loads(self.data.attrs["provenance"])
        return found

    def __repr__(self) -> str:
        made_of = self.provenance
        sizes = ", ".join(f"{dim} {size}" for dim, size in self.data.sizes.items())
        return f"<{self.instrument} of {made_of['model']['name']}: {sizes}>"

    def plot(self, theme: str = "light", **options: Any) -> go.Figure:
        """The figure that report and app draw too; `options` are the instrument's."""
        return find(self.instrument).figure(self.data, theme=theme, **options)

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows: the same keys on the command line, in reports and in Parquet."""
        return list(find(self.instrument).rows(self.data))

    def to_frame(self) -> pd.DataFrame:
        """The tidy rows as a pandas DataFrame; (token, score) pairs become dicts, as Parquet needs."""
        import pandas as pd

        rows = [{key: _structs(value) for key, value in row.items()} for row in self.rows()]
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> Path:
        """Save by suffix: all of it (.nc), tidy rows (.parquet, .csv, .json) or the figure.

        Figures are .html, .png, .svg or .pdf; for other than the default figure or size, see `plot`
        and `workbench.figures.save_figure`. netCDF alone can be loaded back; every file can be read
        without this project, and appears whole or not at all.

        Raises:
            ResultError: another suffix, or a folder that is not there.
        """
        path = checked_destination(path)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as folder:
            unfinished = Path(folder) / path.name
            WRITERS[path.suffix](self, unfinished)
            unfinished.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Load what `save` wrote.

        Raises:
            ResultError: no such file, or not a result.
        """
        import xarray as xr

        if not Path(path).is_file():
            raise ResultError(f"no result file {path}")
        try:
            data = xr.load_dataset(path, engine="h5netcdf")
        except (OSError, ValueError) as error:
            raise ResultError(f"{path} is no netCDF file: {str(error).splitlines()[0]}") from error
        return cls(data)

    def cite(self) -> str:
        """A sentence for a methods section, with the settings used, and the method's BibTeX."""
        citation = find(self.instrument).citation
        made_of = self.provenance
        settings = ", ".join(f"{k}={v!r}" for k, v in made_of["settings"].items())
        version = made_of["versions"]["mechanistic-interpretability-workbench"]
        sentence = citation.sentence.format(settings=settings, model=made_of["model"]["name"])
        return (
            f"{sentence} (Mechanistic Interpretability Workbench {version}).\n\n{citation.bibtex}\n"
        )

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


def plot_layers(
    results: Sequence[Result],
    *,
    prompt: str | int | None = None,
    position: int | None = None,
    site: str | None = None,
    layer: int | None = None,
    theme: str = "light",
) -> go.Figure:
    """The panels of several instruments side by side on one layer axis, as the app's Layers tab.

    Args:
        results: of one model and the same prompts.
        prompt, position, site: the place to read; the first prompt, its last position and the first
            site where None.
        layer: the layer to mark.
        theme: "light" or "dark".

    Raises:
        ResultError: a result has no such prompt or position, or they are of different models.
    """
    from workbench.figures import layer_panels, themed

    weights = {(r.provenance["model"]["name"], r.provenance["model"]["weights"]) for r in results}
    if len(weights) > 1:
        names = ", ".join(f"{name} ({digits})" for name, digits in sorted(weights))
        raise ResultError(f"results of different models share no layer axis: {names}")
    groups = {}
    for result in results:
        kind = find(result.instrument)
        groups[kind.title] = kind.panels(result.data, prompt=prompt, position=position, site=site)
    return layer_panels(groups, themed(theme), layer=layer, position=position)


def checked_destination(path: str | Path) -> Path:
    """`path`, if a result could be saved there.

    Raises:
        ResultError: a suffix that says nothing, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise ResultError(f"{path}: expected a suffix of {', '.join(WRITERS)}")
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


def _write_json(result: Result, path: Path) -> None:
    text = json.dumps(result.rows(), ensure_ascii=False, allow_nan=False)
    path.write_text(text, encoding="utf-8")


def _write_figure(result: Result, path: Path) -> None:
    from workbench.figures import save_figure

    save_figure(result.plot(), path)


WRITERS: Mapping[str, Callable[[Result, Path], Any]] = {
    ".nc": lambda result, path: result.data.to_netcdf(path, engine="h5netcdf"),
    ".parquet": lambda result, path: result.to_frame().to_parquet(path),
    ".csv": lambda result, path: result.to_frame().to_csv(path, index=False),
    ".json": _write_json,
    **dict.fromkeys((".html", ".png", ".svg", ".pdf"), _write_figure),
}

"""Results: named-axis numbers that know where they come from, and how to be drawn and cited."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.errors import ResultError
from workbench.instrument import find
from workbench.shown import WRITERS, Shown, Writers
from workbench.simulation import maker

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from workbench.figures.panels import Panel

__all__ = ["Result", "called", "plot_layers", "require_one_model", "settings_of"]

NAMED = 3  # changed maps that a name lists; of more it says how many


def _write_netcdf(result: Result, path: Path) -> None:
    result.data.to_netcdf(path, engine="h5netcdf")


class Result(Shown):
    """What an instrument measured.

    Attributes:
        data: dataset with axes in the field's words; each variable has its unit in
            `attrs["unit"]`. The axis `place` stacks (prompt, position), since prompts differ in
            length; `prompt`, `position` and `token` are its coordinates.
    """

    writers: ClassVar[Writers] = {".nc": _write_netcdf, **WRITERS}

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
        of = f" of {called(made_of['model'])}" if "model" in made_of else ""
        return f"<{self.instrument}{of}: {sizes}>"

    def plot(self, theme: str = "light", **options: Any) -> go.Figure:
        """The figure that report and app draw too; `options` are the instrument's."""
        return maker(self.instrument).figure(self.data, theme=theme, **options)

    def rows(self) -> list[dict[str, Any]]:
        """Tidy rows: the same keys on the command line, in reports and in Parquet."""
        return list(maker(self.instrument).rows(self.data))

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
        made_of = self.provenance
        citation = maker(self.instrument).source(made_of["settings"])
        settings = ", ".join(f"{k}={v!r}" for k, v in made_of["settings"].items())
        version = made_of["versions"]["mechanistic-interpretability-workbench"]
        model = called(made_of["model"]) if "model" in made_of else ""  # a simulation has none
        sentence = citation.sentence.format(settings=settings, model=model)
        return (
            f"{sentence} (Mechanistic Interpretability Workbench {version}).\n\n{citation.bibtex}\n"
        )


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
        ResultError: a result has no such prompt or position, they are of different models, or two are
            of one instrument with nothing in their titles to tell them apart.
    """
    from workbench.figures import layer_panels, themed

    require_one_model(results)
    groups: dict[str, Sequence[Panel]] = {}
    for result in results:
        kind = find(result.instrument)
        title = kind.heading(result.data)
        if title in groups:
            raise ResultError(f"two results are called {title!r}: draw them in a figure each")
        groups[title] = kind.panels(result.data, prompt=prompt, position=position, site=site)
    return layer_panels(groups, themed(theme), layer=layer, position=position)


def require_one_model(results: Sequence[Result]) -> None:
    """Refuse results of different models.

    Raises:
        ResultError: they are.
    """
    weights = {_identity(result.provenance["model"]) for result in results}
    if len(weights) > 1:
        names = ", ".join(f"{name} ({digits})" for name, digits in sorted(weights))
        raise ResultError(f"results of different models share no layer axis: {names}")


def called(model: Mapping[str, Any]) -> str:
    """What the provenance of a model calls it: its name, the adapter that was on, the changed maps."""
    adapter, changes = model.get("adapter"), model.get("changes", [])
    name = str(model["name"]) if adapter is None else f"{model['name']} + {adapter['name']}"
    if len(changes) > NAMED:
        name = f"{name} with {len(changes)} maps changed"
    elif changes:
        changed = " and ".join(f"{change['map']} of layer {change['layer']}" for change in changes)
        name = f"{name} with {changed} changed"
    steered = " and ".join(
        f"{one['strength']:+g} at {one['site']} of layer {one['layer']}"
        for one in model.get("steering", [])
    )
    return f"{name} steered by {steered}" if steered else name


def _identity(model: Mapping[str, Any]) -> tuple[str, str]:
    """Name and hash of the weights, those of an adapter included."""
    adapter = model.get("adapter")
    added = "" if adapter is None else f" + {adapter['weights']}"
    return called(model), f"{model['weights']}{added}"


def settings_of(data: xr.Dataset) -> dict[str, Any]:
    """The settings that a result's dataset was made with."""
    found: dict[str, Any] = Result(data).provenance["settings"]
    return found

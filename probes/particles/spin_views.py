"""What of spins is shown: rows, panels along the layers, facts of a layer, a report's section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import xarray as xr

from probes.particles.panels import CONTROLS
from probes.particles.reading import ends, over_draws
from probes.particles.views import CENTRED
from workbench.figures.panels import Line, Lines, Panel
from workbench.figures.reading import chosen
from workbench.tidy import plain

if TYPE_CHECKING:
    import polars as pl

    from workbench.instrument import Instrument
    from workbench.report.sections import Section

__all__ = ["facts", "panels", "rows", "section"]

NUMBERS = {
    "susceptibility": "susceptibility",
    "magnetisation": "magnetisation",
    "common_magnetisation": "magnetisation of all prompts together",
    "spin_energy": "energy of a spin",
}
COUNTS = ("prompts", "tokens")
DRAWN = ("susceptibility", "magnetisation")
OWN = {"raw": "raw", "centred": "centred"}
SAYS = (
    "Each token's state is a unit vector, a spin; a prompt's magnetisation is their mean. The "
    "susceptibility is the variance of the magnetisation over these prompts times the number of tokens, "
    "sum_b n_b ||m_b - M||^2 / (B - 1): 1 in expectation for random directions, up to about n where the "
    "tokens of each prompt coincide. It is of this ensemble of texts. Bands of controls go from their "
    "least to their largest draw."
)


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys layer, view, prompts, tokens, each number, ends of its susceptibility, and draws.

    Of a control a number is the mean over its draws; `susceptibility_low` and `_high` are the least and the
    largest of several.
    """
    columns = {name: over_draws(data[name]) for name in (*COUNTS, *NUMBERS)}
    drawn = data["prompts"].notnull().sum("draw")
    for end, values in zip(("low", "high"), ends(data["susceptibility"]), strict=True):
        columns[f"susceptibility_{end}"] = values.where(drawn > 1)
    for view in data["view"].values.tolist():
        for layer in data["layer"].values.tolist():
            here = {"view": view, "layer": layer}
            if draws := int(drawn.sel(here)):
                cell = {
                    name: plain(values.sel(here).values[()]) for name, values in columns.items()
                }
                yield {"layer": layer, "view": view} | _whole(cell) | {"draws": draws}


def _whole(cell: dict[str, Any]) -> dict[str, Any]:
    """Counts as whole numbers, where a control's mean over its draws is one."""
    there = {name: cell[name] for name in COUNTS if cell[name] is not None}
    return cell | {name: int(value) for name, value in there.items() if value.is_integer()}


def panels(data: xr.Dataset) -> list[Panel]:
    """Susceptibility and magnetisation, raw and centred, with the controls' draws as bands."""
    known = data["view"].values.tolist()
    return [_lines(data, name, view) for name in DRAWN for view in OWN if view in known]


def _lines(data: xr.Dataset, name: str, view: str) -> Lines:
    values = data[name]
    lines = {"these prompts": Line(over_draws(values.sel(view=view)))}
    for control, title in CONTROLS.items():
        drawn = control if view == "raw" else CENTRED[control]
        if drawn in data["view"].values:
            those = values.sel(view=drawn)
            lines[title] = Line(over_draws(those), *ends(those), control=True)
    if name == "susceptibility":
        level = over_draws(values.sel(view=view))
        lines["random directions"] = Line(xr.ones_like(level), control=True)
    return Lines(f"{name}-{view}", f"{NUMBERS[name]}, {view}", lines)


def facts(data: xr.Dataset, layer: int) -> list[tuple[str, str]]:
    """Each number at a layer, centred and raw, with its twin's.

    Raises:
        ResultError: there is no such layer.
    """
    here = data.sel(layer=chosen("layer", layer, data["layer"].values)).map(over_draws)
    known, found = here["view"].values.tolist(), []
    for name, title in NUMBERS.items():
        for view in reversed(OWN):
            if view in known:
                control = "random" if view == "raw" else CENTRED["random"]
                twin = (
                    f" (twin {float(here[name].sel(view=control)):.3g})" if control in known else ""
                )
                found.append((f"{title}, {view}", f"{float(here[name].sel(view=view)):.3g}{twin}"))
    counts = here.isel(view=0)
    said = f"{float(counts['tokens']):.0f} in {float(counts['prompts']):.0f} prompts"
    return [*found, ("tokens that count", said)]


def section(kind: type[Instrument], rows: pl.LazyFrame, data: xr.Dataset | None) -> Section:
    """The formula, the figure, and all numbers."""
    from workbench.report.sections import Listing, Plot, Section

    table = rows.collect()
    if data is None:
        return Section(remarks=[SAYS])
    plot = Plot("Spins over the prompts", SAYS, kind.figure(data), table)
    return Section(
        plots=[plot], listings=[Listing("All numbers", "One row a view and layer.", table)]
    )

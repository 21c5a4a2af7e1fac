"""Attention on the layer axis: scores by head, entropy beside uniform attention, facts of a cell."""

from __future__ import annotations

import math
from collections.abc import Sequence

import xarray as xr

from lenses.attention.figures import of_prompt
from lenses.attention.rows import SCORES, means
from workbench.figures.generic import at_place
from workbench.figures.panels import Heat, Line, Lines, Panel
from workbench.figures.scale import Scale

__all__ = ["facts", "panels"]

SHOWN = ("induction", "previous", "sink")


def panels(data: xr.Dataset, *, prompt: str | int | None = None) -> Sequence[Panel]:
    """Induction, previous-token and sink weight above chance by head; entropy and its control.

    The band is from the least to the greatest head.
    """
    found = means(of_prompt(data, prompt))
    heats = [_heat(found, name) for name in SHOWN if found[name].notnull().any()]
    if not found["entropy"].notnull().any():
        return heats
    lines = {
        "mean of heads": Line(
            found["entropy"].mean("head"),
            found["entropy"].min("head"),
            found["entropy"].max("head"),
        ),
        "uniform": Line(found["entropy_chance"], control=True),
    }
    high = max(1.0, math.ceil(float(found["entropy_chance"].max())))
    return [*heats, Lines("entropy", "entropy, nat", lines, (-0.03 * high, 1.03 * high))]


def _heat(found: xr.Dataset, name: str) -> Heat:
    """A score less that of uniform attention, so that chance has no colour."""
    chance = found[f"{name}_chance"]
    excess = (found[name] - chance).transpose("layer", "head")
    end = float(abs(excess).max()) or 1.0
    return Heat(name, name, excess, Scale("less uniform", "weight", "signed", -end, end))


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None, position: int | None = None
) -> list[tuple[str, str]]:
    """For each score defined at this place, the head with the most, beside uniform attention."""
    here = at_place(data, prompt, position)
    if layer not in here["layer"]:
        return []
    here = here.sel(layer=layer)
    found = []
    for name in SCORES:
        values = here[name]
        if values.notnull().any():
            best, most = int(here["head"][int(values.argmax("head"))]), float(values.max())
            chance, unit = float(here[f"{name}_chance"]), str(values.attrs["unit"])
            unit = "" if unit == "attention weight" else f" {unit}"
            said = f"head {best}: {most:.3g}{unit}, uniform {chance:.3g}"
            found.append((f"most {name.replace('_', ' ')}", said))
    return found

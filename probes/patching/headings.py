"""What patching figures say above themselves: which runs, which score, which paths."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from probes.patching.reading import is_together, mean_of
from probes.tracing.headings import scored
from workbench.figures import visible
from workbench.figures.reading import words
from workbench.results import settings_of

__all__ = ["lines", "which"]

RUNS = {
    "denoising": (
        "Denoising: clean values are put into the corrupted run, to see whether they suffice",
        "corrupted",
    ),
    "noising": (
        "Noising: corrupted values are put into the clean run, to see whether the clean ones are needed",
        "clean",
    ),
}
REPAIR = "Later components repair or undo: effects of cells do not add up."


def lines(data: xr.Dataset, shown: xr.Dataset) -> list[str]:
    """The lines above a figure of some of a result's places."""
    settings, unit = settings_of(data), str(data["clean"].attrs["unit"])
    what, base = RUNS[str(settings["direction"])]
    first = ~shown["prompt"].to_series().duplicated().to_numpy()
    own = shown.isel(place=np.flatnonzero(first))
    runs = {name: float(own[name].mean()) for name in ("clean", "corrupted", "total")}
    numbers = f"clean {runs['clean']:.3g}, corrupted {runs['corrupted']:.3g}, total effect "
    return [
        f"{what}; {which(data, shown)}.",
        f"{scored(settings, _target(own))}: {numbers}{runs['total']:+.3g} {unit}.",
        f"Effect: score of the patched run − score of the {base} run.",
        *_mean_line(own),
        *_wrong(own),
        _paths(settings) if "mlps" in settings else REPAIR,
    ]


def which(data: xr.Dataset, shown: xr.Dataset) -> str:
    """Which tokens are put in."""
    if not is_together(data):
        return "one token at a time"
    counts = sorted({int(n) for n in np.ravel(shown["tokens"].values)})
    ends = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"all {ends} tokens together" if counts[-1] > 1 else "one token"


def _target(own: xr.Dataset) -> str:
    if own.sizes["place"] > 1 or int(own["target_id"][0]) < 0:
        return "target"
    return visible(str(words(own, own["target_id"])[0]))


def _mean_line(own: xr.Dataset) -> list[str]:
    """How many prompts a mean is of, with the interval of their total effect."""
    if own.sizes["place"] == 1:
        return []
    total = mean_of(own["total"].values, own["group"].values)
    groups, ends = int(total.n), ""
    if groups > 1:
        ends = f" Total effect {total.value - total.half:+.3g} to {total.value + total.half:+.3g}."
    return [
        f"Means over {own.sizes['place']} prompts in {groups} groups; intervals: Student's 95% over "
        f"groups.{ends}"
    ]


def _wrong(own: xr.Dataset) -> list[str]:
    wrong = int((own["correct"].values == 0).sum())
    if not wrong:
        return []
    if own.sizes["place"] == 1:
        top = visible(str(words(own, own["top_id"])[0]))
        return [f"The clean run's own top token is {top}, not the target."]
    return [f"In {wrong} of them the clean run's top token is not the target."]


def _paths(settings: dict[str, Any]) -> str:
    """Which paths are open."""
    given = settings["receivers"]
    receivers = given if isinstance(given, str) else ", ".join(given)
    between = {
        "frozen": "attention and MLPs between are frozen",
        "recomputed": "attention between is frozen, MLPs between are recomputed",
    }
    return f"Paths to {receivers} alone: {between[settings['mlps']]}."

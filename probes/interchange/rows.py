"""Tidy rows of interchanges: one a (control, layer)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workbench.results import settings_of
from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]

NUMBERS = ("accuracy", "top", "score", "lead")


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows layer by layer, with the keys below; `low` and `high` are of the accuracy.

    layer, site, subspace, k (dimensions), control ("subspace" is the interchange itself), accuracy,
    low, high, top, top_low, top_high, score, score_low, score_high, lead, lead_low, lead_high,
    train_accuracy, n, n_train, groups.
    """
    settings = settings_of(data)
    shared = {name: int(data[name]) for name in ("n", "n_train", "groups")}
    for layer in data["layer"].values.tolist():
        here = data.sel(layer=layer)
        for control in data["control"].values.tolist():
            cell = here.sel(control=control)
            yield {
                "layer": layer,
                "site": settings["site"],
                "subspace": settings["subspace"],
                "k": int(cell["dimensions"]),
                "control": control,
                **_numbers(cell),
                "train_accuracy": plain(cell["train_accuracy"].values[()]),
                **shared,
            }


def _numbers(cell: xr.Dataset) -> dict[str, Any]:
    found = {}
    for name in NUMBERS:
        found[name] = plain(cell[name].values[()])
        for end in ("low", "high"):
            key = end if name == "accuracy" else f"{name}_{end}"
            found[key] = plain(cell[f"{name}_{end}"].values[()])
    return found

"""Tidy rows of sparse probes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]

FIRST = ("threshold", "f1", "f1_low", "f1_high", "p", "selectivity")
MORE = ("precision", "recall", "mcc", "average_precision", "roc_auc", "f1_at_zero", "validation_f1")
LAST = ("control_f1", "compression")
OF_LAYER = ("direction_f1", "dense_f1")
OF_FEATURE = ("all_positive", "random", "examples", "positives")


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """One row a (feature, layer, k), `units` by falling weight; None where there is no such number."""
    site = json.loads(data.attrs["provenance"])["settings"]["site"]
    for feature in range(data.sizes["feature"]):
        for layer in range(data.sizes["layer"]):
            for k in range(data.sizes["k"]):
                cell = data.isel(feature=feature, layer=layer, k=k)
                numbers = {name: _number(cell, name) for name in (*FIRST, *MORE, *LAST)}
                first = {name: numbers.pop(name) for name in FIRST}
                yield {
                    "feature": str(cell["feature"].item()),
                    "site": site,
                    "layer": int(cell["layer"]),
                    "k": int(cell["k"]),
                    **first,
                    "units": [unit for unit in cell["units"].values.tolist() if unit >= 0],
                    "weights": cell["weight"].values[: int(cell["k"])].tolist(),
                    **numbers,
                    **{name: _number(cell, name) for name in (*OF_LAYER, *OF_FEATURE)},
                }


def _number(cell: xr.Dataset, name: str) -> Any:
    return plain(cell[name].values[()]) if name in cell else None

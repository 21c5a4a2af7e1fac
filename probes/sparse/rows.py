"""Tidy rows of sparse probes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workbench.results import settings_of
from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["by_site", "of_own_units", "rows"]

FIRST = ("threshold", "f1", "f1_low", "f1_high", "p", "selectivity")
MORE = ("precision", "recall", "mcc", "average_precision", "roc_auc", "f1_at_zero", "validation_f1")
LAST = ("control_f1", "compression")
OF_LAYER = ("direction_f1", "dense_f1")
OF_FEATURE = ("all_positive", "random", "examples", "positives")


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """One row a (site, feature, layer, k), `units` by falling weight; None for no such number."""
    for name, site in by_site(data).items():
        for feature in range(data.sizes["feature"]):
            for layer in range(data.sizes["layer"]):
                for k in range(data.sizes["k"]):
                    cell = site.isel(feature=feature, layer=layer, k=k)
                    if (cell["units"] >= 0).any():  # else the site has no such layer
                        yield _row(name, cell)


def by_site(data: xr.Dataset) -> dict[str, xr.Dataset]:
    """The result of each site or SAE by its name."""
    if "site" in data.dims:
        return {str(name): data.sel(site=name) for name in data["site"].values.tolist()}
    return {_own_site(data): data}


def of_own_units(data: xr.Dataset) -> xr.Dataset:
    """The result of the site's own units alone, at the layers at which they were probed."""
    one = by_site(data)[_own_site(data)]
    probed = (one["units"] >= 0).any([dim for dim in one["units"].dims if dim != "layer"])
    one = one.isel(layer=probed.values)
    known = one["difference"].notnull().any(["feature", "layer"])
    return one.isel(unit=slice(int(known.values.nonzero()[0][-1]) + 1))


def _own_site(data: xr.Dataset) -> str:
    return str(settings_of(data)["site"])


def _row(site: str, cell: xr.Dataset) -> dict[str, Any]:
    numbers = {name: _number(cell, name) for name in (*FIRST, *MORE, *LAST)}
    first = {name: numbers.pop(name) for name in FIRST}
    return {
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

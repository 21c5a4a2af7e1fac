"""Tidy rows of superposition statistics: one a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Keys layer, neurons, p20, p50, p80, shuffled_p20, ..., negative, weight_norm and bias (medians)."""
    for layer in data["layer"].values.tolist():
        one = data.sel(layer=layer)
        found: dict[str, Any] = {"layer": layer, "neurons": data.sizes["unit"]}
        for prefix, name in (("", "quantiles"), ("shuffled_", "shuffled_quantiles")):
            for quantile, value in zip(data["quantile"].values, one[name].values, strict=True):
                found[f"{prefix}p{round(100 * float(quantile))}"] = plain(value)
        medians = {name: plain(np.median(one[name].values)) for name in ("weight_norm", "bias")}
        yield {**found, "negative": plain(one["negative"].values[()]), **medians}

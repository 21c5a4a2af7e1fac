"""What the layer axis shows of sparse probes: F1 of each feature, beside the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from probes.sparse.family import plain_name
from probes.sparse.rows import by_site
from workbench.figures.panels import Line, Lines, Panel

__all__ = ["panels"]

MOST_LINES = 4


def panels(data: xr.Dataset) -> Sequence[Panel]:
    """Of the smallest k and the largest: lines with intervals, of the best few features by validation.

    Latents of an SAE have a line of their own beside the site's units. One feature alone stands beside its
    controls and dense probes.
    """
    ks, sites = data["k"].values.tolist(), by_site(data)
    most = max(1, MOST_LINES // len(sites))
    best = data["validation_f1"].max(
        [dim for dim in data["validation_f1"].dims if dim != "feature"]
    )
    few = sorted(np.argsort(-best.values, kind="stable")[:most].tolist())
    more = f" ({most} of {best.size} features)" if best.size > most else ""
    return [
        _lines(sites, few, k, f"F1, {k} unit{'s' if k > 1 else ''}{more}")
        for k in dict.fromkeys((ks[0], ks[-1]))
    ]


def _lines(sites: Mapping[str, xr.Dataset], features: Sequence[int], k: int, title: str) -> Lines:
    lines: dict[str, Line] = {}
    for feature in features:
        for site, of_site in sites.items():
            one = of_site.sel(k=k).isel(feature=feature)
            name = str(one["feature"].item())
            called = f"{name}, {plain_name(site)}" if len(sites) > 1 else name
            lines[called] = Line(one["f1"], one["f1_low"], one["f1_high"])
    if len(features) == 1:
        of_k = {site: one.sel(k=k).isel(feature=features[0]) for site, one in sites.items()}
        lines |= _dense(of_k) | _controls(next(iter(of_k.values())))
    return Lines(f"f1-{k}", title, lines, ends=(0.0, 1.0))


def _dense(sites: Mapping[str, xr.Dataset]) -> dict[str, Line]:
    """The probes of whole sites, where they were asked for.

    An SAE's is of the states that it reads: at its own layers the site's, which may not be among the
    layers that were probed of the site itself.
    """
    found: dict[str, xr.DataArray] = {}
    for site, one in sites.items():
        if "dense_f1" in one:
            called = f"dense, all of {site.removeprefix('sae:')}"
            values = one["dense_f1"].drop_vars("site", errors="ignore")
            found[called] = found[called].fillna(values) if called in found else values
    return {called: Line(values, control=True) for called, values in found.items()}


def _controls(one: xr.Dataset) -> dict[str, Line]:
    """What a single feature is held against: of the first site, where there are several."""
    level = xr.full_like(one["f1"], float(one["all_positive"]))
    found = {"all positive": Line(level, control=True)}
    if one["control_f1"].notnull().any():
        found["control task"] = Line(one["control_f1"], control=True)
    return found

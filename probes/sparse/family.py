"""What units are called, and of how many of them p values are adjusted together."""

from __future__ import annotations

import xarray as xr

from probes.sparse.rows import by_site

__all__ = ["family", "plain_name"]

NEURONS = "mlp_act"


def plain_name(site: str) -> str:
    """What a site's units are called: neurons, latents (resid_post), or the site's name."""
    if site.startswith("sae:"):
        return f"latents ({site.removeprefix('sae:')})"
    return "neurons" if site == NEURONS else site


def family(data: xr.Dataset) -> str:
    """The units, of all probed layers, and the features that are one family of p values.

    Empty where there are none, as without permutations. Features that have no p are no part of it.
    """
    p = data["p"]
    features = int(p.notnull().any([dim for dim in p.dims if dim != "feature"]).sum())
    if not features:
        return ""
    units = " and ".join(_counted(site, one) for site, one in by_site(data).items())
    return f"{units}, all probed layers, {features} feature{'s' if features > 1 else ''}"


def _counted(site: str, one: xr.Dataset) -> str:
    count = int(one["difference"].notnull().any("feature").sum())
    called = plain_name(site)
    return f"{count:,} {called if called != site else f'units of {site}'}"

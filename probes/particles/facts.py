"""What a result says of one prompt at one layer, and of one token's norm there."""

from __future__ import annotations

import math

import xarray as xr

from probes.particles.quantities import QUANTITIES
from probes.particles.reading import TOO_FEW, of_prompt, over_draws, reason
from workbench.figures.generic import at_place
from workbench.figures.reading import chosen

__all__ = ["facts"]

Facts = list[tuple[str, str]]
SHOWN = (
    "mean_cosine",
    "order_parameter",
    "participation_ratio",
    "vendi",
    "components",
    "silhouette",
    "agglomerative",
    "hdbscan",
    "concentration",
    "cosine_50",
    "spin_energy",
    "force",
    "intrinsic_dimension",
    "step",
    "top_dimensions_cosine",
)


def facts(
    data: xr.Dataset,
    *,
    layer: int,
    prompt: str | int | None = None,
    position: int | None = None,
) -> Facts:
    """Each quantity, raw and centred, with its twin's; how many tokens count; the token's norm.

    Raises:
        ResultError: the result has no such prompt, position or layer.
    """
    one = of_prompt(data, prompt)
    here = one.sel(layer=chosen("layer", layer, one["layer"].values)).map(over_draws)
    views = [view for view in ("centred", "raw") if view in here["view"].values]
    found = [fact for name in SHOWN for view in views for fact in _fact(here, name, view)]
    return [*found, *_counted(here), *_norm(data, layer, prompt, position)]


def _fact(here: xr.Dataset, name: str, view: str) -> Facts:
    value = float(here[name].sel(view=view))
    if math.isnan(value):
        return []
    control = "random_centred" if view == "centred" else "random"
    known = here["view"].values
    twin = f" (twin {float(here[name].sel(view=control)):.3g})" if control in known else ""
    return [(f"{QUANTITIES[name].title}, {view}", f"{value:.3g}{twin}")]


def _counted(here: xr.Dataset) -> Facts:
    tokens, sinks, zeros = (float(here[name].isel(view=0)) for name in ("tokens", "sinks", "zeros"))
    chance = f"; r of random directions {1 / math.sqrt(tokens):.2f}" if tokens else ""
    left = f"{sinks:.0f} sinks and {zeros:.0f} without direction left out"
    found = [("tokens that count", f"{tokens:.0f} ({left}{chance})")]
    own = here.isel(view=0)
    if not math.isnan(float(own["vendi"])) and math.isnan(float(own["intrinsic_dimension"])):
        found.append(("intrinsic dimension", TOO_FEW))
    why = reason(tokens)
    return found if why is None else [*found, ("no numbers", why)]


def _norm(data: xr.Dataset, layer: int, prompt: str | int | None, position: int | None) -> Facts:
    places = data[["norm_ratio"]].drop_dims("prompt", errors="ignore")
    place = at_place(places, prompt, position)
    return [
        ("norm of this token", f"{float(place['norm_ratio'].sel(layer=layer)):.2f} x the median")
    ]

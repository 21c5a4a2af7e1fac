"""What a logit-lens result says of one cell, in words."""

from __future__ import annotations

import math

import xarray as xr

from lenses.logit.reading import heading
from workbench.figures.generic import at_place
from workbench.figures.reading import chosen, words
from workbench.figures.tokens import visible

__all__ = ["facts"]

Facts = list[tuple[str, str]]


def facts(
    data: xr.Dataset,
    *,
    layer: int,
    prompt: str | int | None = None,
    position: int | None = None,
    site: str | None = None,
) -> Facts:
    """Target and foil, the settling layer, entropy and divergences, the norm; what there is.

    Raises:
        ResultError: the result has no such prompt, position or layer.
    """
    place = at_place(data, prompt, position, site)
    cell = place.sel(layer=chosen("layer", layer, place["layer"].values))
    return [*_followed(cell), *_along(cell), *_spread(cell), *_size(cell), *_lens(data)]


def _followed(cell: xr.Dataset) -> Facts:
    """Target and foil, in one row where they are the same token."""
    ids = {name: int(cell[f"{name}_id"]) for name in ("target", "foil")}
    if ids["target"] == ids["foil"]:
        return _token(cell, "target", "target and foil")
    return [*_token(cell, "target", "target"), *_token(cell, "foil", "foil")]


def _token(cell: xr.Dataset, name: str, title: str) -> Facts:
    if cell[f"{name}_id"] < 0 or math.isnan(cell[f"{name}_logprob"]):
        return []
    token = visible(str(words(cell, cell[f"{name}_id"])))
    chance, rank = math.exp(cell[f"{name}_logprob"]), int(cell[f"{name}_rank"])
    return [(f"{title} {token}", f"rank {rank:,}, p {chance:.3g}")]


def _along(cell: xr.Dataset) -> Facts:
    found = []
    if cell["target_id"] >= 0 and cell["target_peak_layer"] >= 0:
        peak, chance = cell["target_peak_layer"].item(), math.exp(cell["target_peak_logprob"])
        found.append(("target at its best", f"layer {peak}, p {chance:.3g}"))
    if cell["settling_layer"] >= 0:
        found.append(("top token settles at", f"layer {cell['settling_layer'].item()}"))
    return found


def _spread(cell: xr.Dataset) -> Facts:
    named = {"entropy": "entropy", "kl": "KL(final || layer)", "js": "JS(final, layer)"}
    return [
        (title, f"{cell[name].item():.3f} nat")
        for name, title in named.items()
        if not math.isnan(cell[name])
    ]


def _size(cell: xr.Dataset) -> Facts:
    return [] if math.isnan(cell["norm"]) else [("norm", f"{cell['norm'].item():.2f}")]


def _lens(data: xr.Dataset) -> Facts:
    lens = heading(data)
    return [] if lens is None else [("read with", lens)]

"""Tidy rows of attribution patching: one a cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from probes.circuits.reading import finite, normalised, settings_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]

NUMBERS = ("effect", "stderr", "exact_effect", "exact_stderr")


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, site, layer, head, position, token, effect, stderr, normalised, ...

    `effect` is the approximation; `exact_effect`, `exact_stderr` and `rank_correlation` (of the
    prompt and site) are None unless exact effects were measured. Cells go prompt by prompt.
    """
    settings = settings_of(data)
    ends = [data[name].values for name in ("clean", "corrupted")]
    named = list(
        zip(*(data[name].values.tolist() for name in ("prompt", "position", "token")), strict=True)
    )
    tables = list(_tables(data))
    for place, (prompt, position, token) in enumerate(named):
        clean, corrupted = (float(end[place]) for end in ends)
        for site, layer, head, numbers, ranks in tables:
            values = {name: finite(one[place]) for name, one in numbers.items()}
            if (effect := values["effect"]) is None:
                continue
            yield {
                "prompt": prompt,
                "site": site,
                "layer": layer,
                "head": head,
                "position": position,
                "token": token,
                **{name: values.get(name) for name in NUMBERS},
                "normalised": normalised(effect, clean - corrupted, settings),
                "rank_correlation": None if ranks is None else finite(ranks[place]),
                "clean": clean,
                "corrupted": corrupted,
            }


def _tables(data: xr.Dataset) -> Iterator[tuple[str, int, int | None, dict[str, Any], Any]]:
    """Of each site, layer and head the variables along the places."""
    layers = data["layer"].values.tolist()
    for site in data["site"].values.tolist() if "effect" in data else []:
        ranks = (
            data["rank_correlation"].sel(site=site).values if "rank_correlation" in data else None
        )
        known = [name for name in NUMBERS if name in data]
        for layer in layers:
            cells = {name: data[name].sel(site=site, layer=layer).values for name in known}
            yield site, layer, None, cells, ranks
    if "head_effect" not in data:
        return
    heads = {
        name: name.replace("effect", "head_effect").replace("stderr", "head_stderr")
        for name in NUMBERS
    }
    known = [name for name in NUMBERS if heads[name] in data]
    ranks = data["head_rank_correlation"].values if "head_rank_correlation" in data else None
    for layer in layers:
        for head in data["head"].values.tolist():
            cells = {name: data[heads[name]].sel(layer=layer, head=head).values for name in known}
            yield "z", layer, head, cells, ranks

"""The backward lens on the layer axis: tokens of imprint and shift, ranks beside controls, shares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from xarray import ufuncs

from lenses.backward.maps import kind_of
from workbench.figures.generic import at_place
from workbench.figures.panels import Heat, Line, Lines, Panel, Words
from workbench.figures.reading import chosen, words
from workbench.figures.scale import Scale
from workbench.figures.tokens import visible

__all__ = ["facts", "panels", "ranks", "share", "tokens"]

SHOWN = 3
TITLES = {"model": "", "random target": ", random target", "twin": ", twin"}


def panels(
    data: xr.Dataset, *, prompt: str | int | None = None, position: int | None = None
) -> list[Panel]:
    """For each map its tokens, for a writing one the target's rank with controls too, and shares.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    place = at_place(data, prompt, position)
    found: list[Panel] = []
    for name in place["map"].values.tolist():
        found += tokens(place, name)
        found += ranks(place, name)
    return [*found, *(share(data, prompt, name) for name in place["map"].values.tolist())]


def tokens(
    place: xr.Dataset, name: str, variant: str = "model", what: str = "table"
) -> list[Panel]:
    """The best tokens of one map's imprint, shift or rest by layer; nothing where none was read."""
    one = place.sel(map=name, variant=variant).isel(k=slice(SHOWN))
    scores, ids = (one[f"{what}_{part}"].transpose("layer", "k") for part in ("score", "id"))
    if not scores.notnull().any():
        return []
    texts = scores.copy(data=words(place, ids))
    kind = "rest" if what == "rest" else kind_of(name)
    title = f"{kind} of {name}{TITLES[variant]}"
    short = f"{name}-{kind}{'' if variant == 'model' else '-' + variant.split()[0]}"
    high = max(float(scores.max()), 1e-6)
    return [Words(short, title, texts, scores, Scale(kind, "logit", "blue", 0.0, high))]


def ranks(place: xr.Dataset, name: str) -> list[Panel]:
    """Where the target stands in the shift and in the rest of one map, beside their controls."""
    lines = {
        label.replace(" target", ""): Line(ufuncs.log10(rank), control=control)
        for label, rank, control in _ranked(place.sel(map=name))
        # A control of the shift comes first as the shift does: its rest is what says something.
        if rank.notnull().any() and not (control and label.endswith("shift"))
    }
    if not lines:
        return []
    high = max([1.0, *(float(line.values.max()) for line in lines.values())])
    title = f"rank, {name}, log10"
    return [Lines(f"{name}-rank", title, lines, (-0.05 * high, 1.05 * high))]


def _ranked(one: xr.Dataset) -> Iterator[tuple[str, xr.DataArray, bool]]:
    """Label, rank and whether it is a control."""
    model = one.sel(variant="model")
    first = kind_of(str(one["map"].item()))
    yield first, model["target_rank"], False
    yield "rest", model["rest_rank"], False
    for variant in one["variant"].values.tolist()[1:]:
        control = one.sel(variant=variant)
        yield f"{variant}: {first}", control["target_rank"], True
        yield f"{variant}: rest", control["rest_rank"], True


def share(data: xr.Dataset, prompt: str | int | None, name: str) -> Heat:
    """Which positions write the gradient of one map, by layer."""
    here = data["prompt"].values == chosen("prompt", prompt, data["prompt"].values)
    one = data["share"].sel(map=name, variant="model").isel(place=np.flatnonzero(here))
    values = one.swap_dims(place="position").transpose("layer", "position")
    return Heat(
        f"{name}-share",
        f"share of |G|², {name}",
        values,
        Scale("share", "of |G|²", "signed", -1, 1),
    )


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None, position: int | None = None
) -> list[tuple[str, str]]:
    """Norms, share and ranks of one layer and position, by map; nothing at the embedding."""
    place = at_place(data, prompt, position)
    if layer not in place["layer"].values:
        return []
    here = place.sel(layer=layer)
    return [fact for name in here["map"].values.tolist() for fact in _of_map(here, name)]


def _of_map(here: xr.Dataset, name: str) -> Iterator[tuple[str, str]]:
    one = here.sel(map=name)
    model = one.sel(variant="model")
    yield f"{name}: share of the gradient", f"{float(model['share']):.3f}"
    yield f"{name}: norm of input, gradient", f"{_of(model, 'x_norm')}, {_of(model, 'delta_norm')}"
    if not np.isfinite(model["target_rank"]):
        yield f"{name}: {kind_of(name)}", "not read here (not a dominant position)"
        return
    aimed = visible(str(words(here, model["aimed_id"])))
    for label, rank, _ in _ranked(one):
        if np.isfinite(rank):
            of = "its target" if ":" in label else aimed
            yield f"{name}: rank of {of}, {label}", f"{int(rank):,}"


def _of(model: xr.Dataset, name: str) -> Any:
    return f"{float(model[name]):.3g}"

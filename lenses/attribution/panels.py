"""Direct attribution on the layer axis: branches as bars, heads as a heat map, the largest parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lenses.attribution.words import NAMES, difference
from workbench.figures.generic import at_place
from workbench.figures.panels import Bars, Heat, Panel, Words
from workbench.figures.reading import words
from workbench.figures.scale import Scale

__all__ = ["panels"]

SHOWN = 3  # neurons, or pairs of head and source, of each layer
WIDEST = 24  # letters of the first panel's title


def panels(
    data: xr.Dataset, *, prompt: str | int | None = None, position: int | None = None
) -> list[Panel]:
    """Attention, MLP and embedding as bars; layer by head; the largest sources and neurons.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    place = at_place(data, prompt, position)
    inside = place.sel(layer=slice(1, None))  # the embedding is no block
    found: list[Panel] = [_branches(place)]
    if "head_contribution" in place:
        found.append(_heads(inside))
    if "source_contribution" in place:
        found.append(_sources(inside))
    if "neuron_contribution" in place:
        found.append(_neurons(inside))
    return found


def _branches(place: xr.Dataset) -> Bars:
    values = place["contribution"].transpose("layer", "component")
    parts = [NAMES[name] for name in values["component"].values.tolist()]
    title = f"logit, {difference(place, WIDEST)}"
    return Bars("branches", title, values.assign_coords(component=parts))


def _heads(place: xr.Dataset) -> Heat:
    values = place["head_contribution"].transpose("layer", "head")
    return Heat("heads", "by head", values, _scale(values))


def _sources(place: xr.Dataset) -> Words:
    """The largest pairs of a head and a source position of each layer."""
    wanted = ["source_contribution", "source_position", "source_token_id"]
    pairs = place[wanted].stack(pair=("head", "k")).transpose("layer", "pair")
    values = pairs["source_contribution"]
    best = abs(values).fillna(-1).argsort(axis=1).values[:, ::-1][:, :SHOWN]
    heads = np.broadcast_to(values["head"].values, values.shape)
    sources, tokens = pairs["source_position"].values, words(place, pairs["source_token_id"])
    named = (np.take_along_axis(each, best, 1) for each in (heads, sources, tokens))
    texts = [
        [f"{head}←{source}:{token}" for head, source, token in zip(*row, strict=True)]
        for row in zip(*named, strict=True)
    ]
    shown = _columns(np.take_along_axis(values.values, best, 1), place)
    return _words("sources", "head←source", shown, np.array(texts, dtype=object))


def _neurons(place: xr.Dataset) -> Words:
    best = place[["neuron_contribution", "neuron_unit"]].isel(k=slice(SHOWN))
    shown = _columns(best["neuron_contribution"].transpose("layer", "k").values, place)
    units = best["neuron_unit"].transpose("layer", "k").values
    return _words("neurons", "neurons", shown, units.astype(str).astype(object))


def _words(name: str, title: str, values: xr.DataArray, texts: npt.NDArray[Any]) -> Words:
    tokens = values.copy(data=np.where(values.notnull(), texts, ""))
    return Words(name, title, tokens, values, _scale(values))


def _columns(values: npt.NDArray[Any], place: xr.Dataset) -> xr.DataArray:
    return xr.DataArray(
        values,
        dims=("layer", "k"),
        coords={"layer": place["layer"].values, "k": np.arange(1, values.shape[1] + 1)},
    )


def _scale(values: xr.DataArray) -> Scale:
    """Symmetric about 0, up to the largest of these values."""
    end = float(abs(values).max())
    end = end if end > 0 else 1.0
    return Scale("contribution", "logit", "signed", -end, end)

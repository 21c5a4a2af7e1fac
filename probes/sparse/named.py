"""The variables of a result: their axes and their units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from probes.sparse.sources import Source, layers, names
from workbench.instrument import Named

__all__ = ["named"]

CELL = ("feature", "layer", "k")
NEURON = ("feature", "layer", "rank")
UNITS: Mapping[str, str] = {
    "threshold": "logit",
    "compression": "bit / bit",
    "mcc": "correlation",
    "p": "probability",
    "average_precision": "share",
    "precision": "share",
    "recall": "share",
    "roc_auc": "share",
    "units": "unit index",
    "weight": "logit / activation",
    "difference": "activation",
    "neuron": "unit index",
    "neuron_p": "probability",
    "neuron_low": "activation",
    "neuron_high": "activation",
    "histogram": "examples",
}


def named(
    sources: Sequence[Source], found: Sequence[Sequence[Mapping[str, Tensor]]]
) -> dict[str, Named]:
    """Variables of [feature][source] cells, each over the axes that its name has.

    With the site before the others where there are several.
    """
    dims = {
        **dict.fromkeys(("units", "weight"), (*CELL, "slot")),
        **dict.fromkeys(("direction_f1", "dense_f1"), CELL[:2]),
        "difference": (*CELL[:2], "unit"),
        **dict.fromkeys(("all_positive", "random"), CELL[:1]),
        **dict.fromkeys(("neuron", "neuron_f1", "neuron_p", "neuron_low", "neuron_high"), NEURON),
        "histogram": (*NEURON, "label", "bin"),
    }
    several = len(names(sources)) > 1
    result = {}
    for name in found[0][0]:
        axes, unit = dims.get(name, CELL), UNITS.get(name, "F1")
        if axes == CELL[:1]:
            result[name] = Named(axes, torch.stack([row[0][name] for row in found]), unit)
            continue
        grid = _grid(sources, [[cell[name] for cell in row] for row in found])
        result[name] = Named(("site", *axes), grid, unit) if several else Named(axes, grid[0], unit)
    return result


def _grid(sources: Sequence[Source], values: Sequence[Sequence[Tensor]]) -> Tensor:
    """[site, feature, layer, ...]; NaN, or -1 of whole numbers, where a source has no such layer or unit."""
    first = values[0][0]
    sites, at = names(sources), layers(sources)
    empty = math.nan if first.is_floating_point() else -1
    shape = [max(sizes) for sizes in zip(*(value.shape for value in values[0]), strict=True)]
    grid = first.new_full((len(sites), len(values), len(at), *shape), empty)
    for feature, row in enumerate(values):
        for source, value in zip(sources, row, strict=True):
            part = grid[sites.index(source.name), feature, at.index(source.site.layer)]
            part[tuple(map(slice, value.shape))] = value
    return grid

"""The variables of a result: their axes and their units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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
    "neuron": "unit index",
    "neuron_p": "probability",
    "neuron_low": "activation",
    "neuron_high": "activation",
    "histogram": "examples",
}


def named(found: Sequence[Sequence[Mapping[str, Tensor]]]) -> dict[str, Named]:
    """Variables of [feature][layer] cells, each over the axes that its name has."""
    dims = {
        **dict.fromkeys(("units", "weight"), (*CELL, "slot")),
        **dict.fromkeys(("direction_f1", "dense_f1"), CELL[:2]),
        **dict.fromkeys(("all_positive", "random"), CELL[:1]),
        **dict.fromkeys(("neuron", "neuron_f1", "neuron_p", "neuron_low", "neuron_high"), NEURON),
        "histogram": (*NEURON, "label", "bin"),
    }
    result = {}
    for name in found[0][0]:
        axes = dims.get(name, CELL)
        values = torch.stack([torch.stack([cell[name] for cell in row]) for row in found])
        values = values[:, 0] if axes == CELL[:1] else values
        result[name] = Named(axes, values, UNITS.get(name, "F1"))
    return result

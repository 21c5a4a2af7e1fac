"""Means of activations over all tokens of a prompt set."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.models.protocol import Model
from workbench.prompts import Prompt

__all__ = ["site_means"]

BATCH = 16


def site_means(
    model: Model, prompts: Sequence[Prompt], sites: Sequence[tuple[str, int]]
) -> dict[int, Tensor]:
    """By layer [units] the mean over all tokens of the prompts, in float64."""
    encoded = sorted((model.encode(one, long_targets=True) for one in prompts), key=len)
    sums, count = dict[int, Tensor](), 0
    for begin in range(0, len(encoded), BATCH):
        caught = model.capture(model.batch(encoded[begin : begin + BATCH]), sites)
        count += len(caught.places)
        for name, layer in sites:
            values = caught[name, layer].double().flatten(1).sum(0)
            sums[layer] = sums.get(layer, torch.zeros_like(values)) + values
    return {layer: total / count for layer, total in sums.items()}

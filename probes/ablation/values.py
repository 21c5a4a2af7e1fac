"""What is put in a component's place: nothing, its mean, or what it gives on another prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.ablation.reference import Reference, aligned
from workbench.models.batch import Batch, Places
from workbench.models.captures import Captures
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = ["SITES", "Means", "Values", "component"]

SITES = {"heads": "z", "mlp": "mlp_out", "attention": "attn_out", "blocks": "resid_post"}
BATCH = 16  # reference texts in a pass


@dataclass(frozen=True)
class Values:
    """Values of a component at each layer: [rows or 1, width or 1, ...], or 0 alone."""

    by_layer: Mapping[int, Tensor]

    @classmethod
    def zero(cls, like: Tensor, n_layers: int) -> Values:
        """Nothing at all."""
        return cls({layer: like.new_zeros(()) for layer in range(1, n_layers + 1)})

    @classmethod
    def resampled(cls, model: Model, what: str, batch: Batch, donors: Sequence[Prompt]) -> Values:
        """What each row's donor has at the positions that stand for the row's (see `aligned`)."""
        encoded = [model.encode(prompt) for prompt in donors]
        given = model.batch(encoded)
        caught = model.capture(given, SITES[what])
        width = batch.ids.shape[1]
        at = aligned([*map(len, batch.prompts)], [*map(len, encoded)], width).to(given.device)
        rows = torch.arange(len(encoded), device=given.device)[:, None]
        found = {}
        for layer, values in component(caught, what).items():
            empty = values.new_zeros(*given.ids.shape, *values.shape[1:])
            found[layer] = caught.places.scatter(empty, values)[rows, at]
        return cls(found)

    def placed(self, layer: int, old: Tensor, where: Places, rows: int) -> Tensor:
        """[N, ...] the values at places of a batch in which `rows` prompts come again and again."""
        held = self.by_layer[layer].to(old)
        apart = held.dim() > 1 and held.shape[1] > 1  # the columns have values of their own
        width = held.shape[1] if apart else int(where.column.max()) + 1
        whole = held.expand(rows, width, *old.shape[1:])
        return whole[where.row % rows, where.column]


def component(caught: Captures, what: str) -> dict[int, Tensor]:
    """By layer [N, ...] what a component gives: z, what a branch adds, or what a block adds."""
    name = SITES[what]
    if what != "blocks":
        return {layer: caught[name, layer] for layer in caught.layers(name)}
    layers = caught.layers(name)[1:]
    return {layer: caught[name, layer] - caught[name, layer - 1] for layer in layers}


@dataclass(frozen=True)
class Means:
    """Means over texts: over all their tokens, and over those at each position.

    Attributes:
        overall: by layer [...].
        at: by layer [positions, ...], up to the last one that two texts reach: where there is one text
            alone, its value is no mean, and to put it into that text ablates nothing.
    """

    overall: Mapping[int, Tensor]
    at: Mapping[int, Tensor]

    @classmethod
    def of(cls, model: Model, what: str, reference: Reference) -> Means:
        """By one pass over the reference texts; sums in double precision."""
        prompts = sorted(reference.encoded(model), key=len)
        longest = len(prompts[-1])
        sums: dict[int, Tensor] = {}
        counts = torch.zeros(longest, dtype=torch.float64, device=model.device)
        for begin in range(0, len(prompts), BATCH):
            caught = _caught(model, prompts[begin : begin + BATCH], what)
            at = caught.places.position
            counts.index_add_(0, at, torch.ones_like(at, dtype=torch.float64))
            for layer, values in component(caught, what).items():
                empty = counts.new_zeros(longest, *values.shape[1:])
                sums.setdefault(layer, empty).index_add_(0, at, values.double())
        overall = {layer: total.sum(0) / counts.sum() for layer, total in sums.items()}
        shared = int((counts > 1).sum())
        each = {layer: total[:shared] for layer, total in sums.items()}
        return cls(overall, {layer: t / _along(counts[:shared], t) for layer, t in each.items()})

    def values(self, by_position: bool, width: int, like: Tensor) -> Values:
        """The means as they are put into a batch of `width` columns, padded on the right.

        Where fewer than two texts reach, the mean at each position is the one over all.
        """
        if not by_position:
            return Values({k: v.to(like)[None, None] for k, v in self.overall.items()})
        found = {}
        for layer, means in self.at.items():
            beyond = self.overall[layer].expand(max(0, width - len(means)), *means.shape[1:])
            found[layer] = torch.cat([means[:width], beyond])[None].to(like)
        return Values(found)


def _caught(model: Model, prompts: Sequence[EncodedPrompt], what: str) -> Captures:
    return model.capture(model.batch(prompts), SITES[what])


def _along(counts: Tensor, like: Tensor) -> Tensor:
    """[positions] counts, shaped to divide [positions, ...]."""
    return counts.view(-1, *[1] * (like.dim() - 1))

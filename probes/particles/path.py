"""The path of a token through the layers: its steps, how straight it is and how it turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from probes.particles.sets import counts, filled, working_dtype

__all__ = ["Steps", "step_size", "straightness", "turn_cosine"]


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """[..., layers] of [..., layers, n]: the mean over tokens that count and have a value."""
    there = mask[..., None, :] & ~values.isnan()
    return filled(values[..., None], there)[..., 0].sum(-1) / counts(there, values)


@dataclass(frozen=True)
class Steps:
    """Lengths and products of the steps dx_l = x_l+1 - x_l, of which all three numbers are made.

    Attributes:
        states: [..., layers, n] lengths ||x_l||.
        lengths: [..., layers - 1, n] lengths ||dx_l||.
        products: [..., layers - 2, n] products <dx_l, dx_l+1>.
        direct: [..., n] lengths ||x_L - x_0||.
    """

    states: Tensor
    lengths: Tensor
    products: Tensor
    direct: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """From states [..., layers, n, d]."""
        return cls.of_layers(x.to(working_dtype(x)).unbind(-3))

    @classmethod
    def of_layers(cls, layers: Sequence[Tensor]) -> Self:
        """From each layer's states [..., n, d], one at a time: all steps are as large as all states."""
        lengths, products, step = [], [], layers[0]
        for before, after in pairwise(layers):
            last, step = step, after - before
            lengths.append(torch.linalg.vector_norm(step, dim=-1))
            if len(lengths) > 1:
                products.append((last * step).sum(-1))
        return cls(
            torch.stack([torch.linalg.vector_norm(one, dim=-1) for one in layers], -2),
            _stacked(lengths, layers[0]),
            _stacked(products, layers[0]),
            torch.linalg.vector_norm(layers[-1] - layers[0], dim=-1),
        )

    def size(self, mask: Tensor) -> Tensor:
        """`step_size`."""
        return _mean(self.lengths / self.states[..., :-1, :], mask)

    def straightness(self, mask: Tensor) -> Tensor:
        """`straightness`."""
        return _mean((self.direct / self.lengths.sum(-2))[..., None, :], mask)[..., 0]

    def turn(self, mask: Tensor) -> Tensor:
        """`turn_cosine`."""
        return _mean(self.products / self.lengths[..., :-1, :] / self.lengths[..., 1:, :], mask)


def _stacked(rows: list[Tensor], like: Tensor) -> Tensor:
    """[..., rows, n]; of no rows too, where a model has few layers."""
    return torch.stack(rows, -2) if rows else like.new_empty(*like.shape[:-2], 0, like.shape[-2])


def step_size(x: Tensor, mask: Tensor) -> Tensor:
    """||x_l+1 - x_l|| / ||x_l||: how far a layer moves a token, relative to where it was.

    From 0; of random directions, independent from layer to layer, sqrt(2). A layer as a step of a flow
    (Lu et al. 2019) is a claim that this is small.

    Args:
        x: [..., layers, n, d] states.
        mask: [..., n] True where a token counts, at every layer.

    Returns:
        [..., layers - 1], the mean over tokens; NaN of none. Tokens that are zero at l say nothing of l.
    """
    return Steps.of(x).size(mask)


def straightness(x: Tensor, mask: Tensor) -> Tensor:
    """||x_L - x_0|| / sum_l ||x_l+1 - x_l||: the way as the crow flies, over the way taken.

    From 0 (a closed loop) to 1 (a straight line); of L + 1 random directions 1 / L, of a random walk
    of L steps about 1 / sqrt(L).

    Args:
        x: [..., layers, n, d] states.
        mask: [..., n] True where a token counts, at every layer.

    Returns:
        [...], the mean over tokens that move; NaN of none.
    """
    return Steps.of(x).straightness(mask)


def turn_cosine(x: Tensor, mask: Tensor) -> Tensor:
    """<dx_l, dx_l+1> / (||dx_l|| ||dx_l+1||), dx_l = x_l+1 - x_l: whether a layer goes on as the last did.

    From -1 (back) to 1 (straight on); of random directions, independent from layer to layer, -1/2; of
    a random walk 0.

    Args:
        x: [..., layers, n, d] states.
        mask: [..., n] True where a token counts, at every layer.

    Returns:
        [..., layers - 2], the mean over tokens that move in both layers; NaN of none.
    """
    return Steps.of(x).turn(mask)

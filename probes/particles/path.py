"""The path of a token through the layers: its steps, how straight it is and how it turns."""

from __future__ import annotations

from torch import Tensor

from probes.particles.sets import counts, filled, working_dtype

__all__ = ["step_size", "straightness", "turn_cosine"]


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """[..., layers] of [..., layers, n]: the mean over tokens that count and have a value."""
    there = mask[..., None, :] & ~values.isnan()
    return filled(values[..., None], there)[..., 0].sum(-1) / counts(there, values)


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
    states = x.to(working_dtype(x))
    return _mean(states.diff(dim=-3).norm(dim=-1) / states[..., :-1, :, :].norm(dim=-1), mask)


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
    states = x.to(working_dtype(x))
    way = states.diff(dim=-3).norm(dim=-1).sum(-2)
    direct = (states[..., -1, :, :] - states[..., 0, :, :]).norm(dim=-1)
    return _mean((direct / way)[..., None, :], mask)[..., 0]


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
    step = x.to(working_dtype(x)).diff(dim=-3)
    length = step.norm(dim=-1)
    products = (step[..., :-1, :, :] * step[..., 1:, :, :]).sum(-1)
    return _mean(products / length[..., :-1, :] / length[..., 1:, :], mask)

"""Two fields in turn: Lie-Trotter (attention, then MLP: a transformer block), Strang, Macaron.

Source: Lu et al. 2019, "Understanding and improving transformer from a multi-particle dynamic system
point of view", arXiv 1906.02762.
"""

from __future__ import annotations

from torch import Tensor

from probes.dynamics.flow import Law, Method, advance

__all__ = ["lie_trotter", "strang"]


def lie_trotter(first: Law, second: Law, x: Tensor, h: float, method: Method = "heun") -> Tensor:
    """[..., n, d] a step h of `first`, then one of `second`: order 1 at best."""
    return advance(second, advance(first, x, h, 1, method=method), h, 1, method=method)


def strang(first: Law, second: Law, x: Tensor, h: float, method: Method = "heun") -> Tensor:
    """[..., n, d] half a step of `first`, one of `second`, half a step of `first`.

    Of order 2 with Heun's substeps, or exact ones. With Euler's ("euler") it is the Macaron network's
    order of sublayers, and of order 1: the order of the parts does not mend that of the steps.
    """
    half = advance(first, x, h / 2, 1, method=method)
    return advance(first, advance(second, half, h, 1, method=method), h / 2, 1, method=method)

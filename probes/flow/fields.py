"""A block's branches as vector fields on the states of a prompt's tokens, and their bracket."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from workbench.errors import UnsupportedError

__all__ = ["Field", "bracket", "pushed"]

Field = Callable[[Tensor], Tensor]
"""States [rows, columns, d] -> what is added to them, of the same shape."""


def pushed(function: Field, states: Tensor, direction: Tensor) -> Tensor:
    """The derivative of a function of the states along a direction, Df(x) v, in one forward pass.

    Args:
        states, direction: [rows, columns, d].

    Raises:
        UnsupportedError: an operation of the function has no forward derivative.
    """
    # Fused attention has no forward derivative; the plain one does.
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        try:
            found = function(forward_ad.make_dual(states, direction))  # type: ignore[no-untyped-call]
        except NotImplementedError as error:
            raise UnsupportedError(
                "the model's blocks have an operation without a forward derivative, so no bracket and no "
                f"exponents: leave bracket and lyapunov out of parts ({error})"
            ) from None
        tangent: Tensor | None = forward_ad.unpack_dual(found).tangent  # type: ignore[no-untyped-call]
    return torch.zeros_like(states) if tangent is None else tangent


def bracket(first: Field, second: Field, states: Tensor) -> Tensor:
    """The Lie bracket [F, G](x) = DG(x) F(x) - DF(x) G(x).

    Following F for a time h and then G for h ends h^2/2 [F, G] + O(h^3) away from following F + G
    for h (Lie-Trotter splitting); F's flow then G's ends h^2 [F, G] away from G's then F's.

    Args:
        first, second: the fields F and G.
        states: [rows, columns, d].

    Returns:
        [rows, columns, d]
    """
    after, before = pushed(second, states, first(states)), pushed(first, states, second(states))
    return after - before

"""How far apart two right computations may lie: the one place where tolerances are made.

Two sides that do the same in another order (padding, batching, eager or fused attention) round
differently, and every block passes on, and may enlarge, what came before it. How much, the model
itself is asked: Hugging Face runs once more with the state after each block disturbed by one
rounding's worth of noise, eps times its size at that place, and what is compared moves so far. (Monte
Carlo arithmetic: Parker, Pierce & Eggert, doi:10.1109/5992.852391.) A block is some twenty dependent
roundings (norms, maps, scores, softmax, activation, sums, on both sides), of random sign: four
standard deviations are 4 sqrt(20) times that. `eps` is that of the coarsest dtype in which Hugging
Face's own forward holds anything that depends on its input: most families compute norms and softmax
in float32 whatever the weights are.

What is rounded once more after that is rounded at the size of the largest number on either side:

- `added`: a sum of three numbers against a fourth that was summed in the model: four roundings.
- `one_step`: one dot product of d terms, summed in another order where shapes differ. Errors of
  random sign add as their root: 64 is the root of the widest model's 4096 terms.

A routed model chooses experts by comparing numbers. In bfloat16 and float16 a rounding can turn the
choice, after which a token's state differs by what one expert adds: there the largest number itself
is the tolerance of a pass. In float32 so near a tie is not met by chance.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from workbench.conformance.cells import Finding

__all__ = ["Dtypes", "Tolerance", "distance"]

ADDED = 4
ONE_STEP = 64
A_BLOCK = 20
DEVIATIONS = 4
COARSE = 1e-4


class Tolerance:
    """Compares two sides of one model's numbers.

    Args:
        eps: as the module says.
        routed: whether tokens are routed to experts.

    Attributes:
        turns: whether a rounding can turn a choice of experts.
    """

    def __init__(self, eps: float, routed: bool) -> None:
        self.eps = eps
        self.turns = routed and eps > COARSE

    def added(self, left: Tensor, right: Tensor) -> Finding:
        """Both sides are sums of the same few numbers."""
        return Finding(distance(left, right), ADDED * self.eps * _scale(left, right))

    def one_step(self, left: Tensor, right: Tensor) -> Finding:
        """Both sides are the model's last step on the same states."""
        return Finding(distance(left, right), ONE_STEP * self.eps * _scale(left, right))

    def a_pass(self, left: Tensor, right: Tensor, moved: float) -> Finding:
        """Both sides are the same function of the same input, computed in another order.

        Args:
            left, right: the sides.
            moved: how far the function moves when the states are disturbed.
        """
        scale = _scale(left, right)
        rounded = DEVIATIONS * math.sqrt(A_BLOCK) * moved + ADDED * self.eps * scale
        return Finding(distance(left, right), max(rounded, scale) if self.turns else rounded)


def distance(left: Tensor, right: Tensor) -> float:
    """The largest absolute difference."""
    return float((left.double() - right.double()).abs().max())


def _scale(left: Tensor, right: Tensor) -> float:
    return float(torch.maximum(left.double().abs(), right.double().abs()).max())


class Dtypes(TorchFunctionMode):
    """Within this context, notes the dtypes of all that depends on something with a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    @property
    def eps(self) -> float:
        """Of the coarsest dtype seen."""
        return max(float(torch.finfo(dtype).eps) for dtype in self.seen)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor) and value.requires_grad:
                self.seen.add(value.dtype)
        return out

"""What a norm does to a vector, found by asking it: its gain, its offset, whether it centres.

Families write their norms in many ways (with and without an offset, with weights about 0 or about
1); two probes of the module itself tell them apart without a table.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Norm"]

LOUD = 1e6  # a probe so large that the norm's eps is below a rounding of float64


@dataclass(frozen=True)
class Norm:
    """norm(x) = gain * (x - mean(x) if it centres, else x) / scale(x) + offset.

    Attributes:
        gain, offset: [d].
        centres: whether the mean is taken off (LayerNorm does, RMSNorm does not).
    """

    gain: Tensor
    offset: Tensor
    centres: bool

    @classmethod
    @torch.no_grad()
    def of(cls, module: nn.Module, like: Tensor) -> Norm:
        """The norm that a module computes.

        Args:
            like: a tensor [..., d] of the width that it takes; gain and offset come on its device and
                in its dtype, float32 at least. The module may lie on another.
        """
        exact = _alone(module)
        width = like.shape[-1]
        device = next((p.device for p in module.parameters()), like.device)
        sign = torch.ones(width, dtype=torch.float64, device=device)
        sign[1::2] = -1  # of mean 0 (or nearly, in an odd width) and scale 1
        probe = sign - sign.mean()
        probe = LOUD * probe / probe.square().mean().sqrt()
        up, down, moved = (exact(p[None])[0].double() for p in (probe, -probe, probe + 3 * LOUD))
        offset = (up + down) / 2
        gain = (up - down) / 2 * LOUD / probe
        centres = bool((moved - up).norm() < 0.1 * (up - offset).norm())
        dtype = torch.promote_types(like.dtype, torch.float32)
        return cls(gain.to(like.device, dtype), offset.to(like.device, dtype), centres)

    def centred(self, states: Tensor) -> Tensor:
        """`states` [..., d] less their mean, where the norm takes it off."""
        return states - states.mean(-1, keepdim=True) if self.centres else states

    def linear(self, states: Tensor) -> Tensor:
        """[..., d] what the norm makes of a vector when its scale is held at 1, without offset."""
        return self.gain * self.centred(states)

    def transposed(self, directions: Tensor) -> Tensor:
        """[..., d] w with w . c == direction . linear(c) for every c."""
        return self.centred(self.gain * directions)

    def inverse_scale(self, states: Tensor, normed: Tensor) -> Tensor:
        """[...] 1 / scale of `states` [..., d], from what the module made of them.

        `normed` = module(states); eps is in it as the module has it.
        """
        linear = self.linear(states)
        sizes = linear.square().sum(-1)
        found = ((normed - self.offset) * linear).sum(-1) / sizes
        return torch.where(sizes > 0, found, torch.zeros_like(found))


def _alone(module: nn.Module) -> Any:
    """A copy in float64 without anybody's hooks."""
    exact = deepcopy(module).double()
    exact._forward_hooks.clear()
    exact._forward_pre_hooks.clear()
    return exact

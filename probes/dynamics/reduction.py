"""More dimensions than tokens: the same dynamics in n dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from probes.dynamics.field import Field
from workbench.errors import SettingError

__all__ = ["Reduced", "reduced"]


@dataclass(frozen=True, eq=False)
class Reduced:
    """Tokens by their coordinates in a basis of their span, which the dynamics do not leave.

    Attributes:
        x: [..., n, n] coordinates, with the cosines of the tokens.
        basis: [..., n, d] orthonormal rows.
    """

    x: Tensor
    basis: Tensor

    def lift(self, x: Tensor) -> Tensor:
        """[..., n, n] -> [..., n, d] tokens of such coordinates."""
        return x @ self.basis


def reduced(field: Field, x: Tensor) -> Reduced:
    """The tokens x [..., n, d], d > n, in n dimensions; exact where V and Q'K are multiples of I.

    Every velocity is then a sum of tokens, so that the span stays. Noise has parts outside of it.

    Raises:
        SettingError: d <= n, or a field with maps or frequencies.
    """
    n, d = x.shape[-2:]
    if d <= n:
        raise SettingError(f"d = {d} is not above n = {n}: there is nothing to reduce")
    if not field.rotational:
        raise SettingError("q, k, v or frequencies are given: only without them is the span kept")
    if field.mask is not None:
        x = torch.where(field.mask[..., None], x, 0)
    basis, coordinates = torch.linalg.qr(x.mT)
    return Reduced(coordinates.mT.contiguous(), basis.mT)

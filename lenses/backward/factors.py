"""Numbers of a gradient G = sum_i x_i^T delta_i from its factors, without forming it."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.models.batch import Places
from workbench.models.engine import Factors

__all__ = ["gradient_norm", "shares", "spectrum", "split"]


def split(factors: Factors, where: Places) -> list[Factors]:
    """The factors of each prompt."""
    counts = torch.bincount(where.row).tolist()
    return [
        Factors(x, delta)
        for x, delta in zip(
            torch.split(factors.x, counts), torch.split(factors.delta, counts), strict=True
        )
    ]


def shares(one: Factors) -> Tensor:
    """[n] share of each token in the gradient: sum_j (x_i . x_j)(delta_i . delta_j) / |G|^2.

    Signed, sums to 1: the inner product of a token's own part with the whole, over the whole's
    square. NaN where the gradient is 0.
    """
    parts = _products(one).sum(-1)
    return parts / parts.sum()


def gradient_norm(one: Factors) -> Tensor:
    """|G|, the Frobenius norm, a number."""
    return _products(one).sum().clamp_min(0).sqrt()


def spectrum(one: Factors, k: int) -> Tensor:
    """[k] largest singular values of G, descending; NaN beyond the number of tokens.

    From thin QRs of X^T and Delta^T: G = Q_x (R_x R_d^T) Q_d^T has the singular values of the core,
    which is as small as the tokens are few.
    """
    left, right = (
        _core(m.T.to(torch.promote_types(m.dtype, torch.float32))) for m in (one.x, one.delta)
    )
    values = torch.linalg.svdvals(left @ right.T)[:k]
    return torch.cat([values, values.new_full((k - len(values),), torch.nan)])


def _core(columns: Tensor) -> Tensor:
    """R of a thin QR."""
    upper: Tensor = torch.linalg.qr(columns, mode="r").R
    return upper


def _products(one: Factors) -> Tensor:
    """[n, n] (x_i . x_j)(delta_i . delta_j), float32 at least."""
    x, delta = (m.to(torch.promote_types(m.dtype, torch.float32)) for m in (one.x, one.delta))
    return (x @ x.T) * (delta @ delta.T)

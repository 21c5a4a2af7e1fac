"""What the architectures of SAEs do differently: their tensors, and how they choose latents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from probes.latents.config import Architecture

__all__ = ["gated", "shapes", "top_k"]


def top_k(p: Tensor, k: int) -> Tensor:
    """[N, d_sae] relu of the k greatest of each row, 0 elsewhere."""
    values, index = p.topk(k, dim=1, sorted=False)
    return torch.zeros_like(p).scatter(1, index, values.relu())


def gated(x: Tensor, part: Mapping[str, Tensor]) -> Tensor:
    """[N, d_sae] latents of a gated SAE of x [N, d_in], which is normed and centred."""
    p = x @ part["W_enc"]
    size = (p * part["r_mag"].exp()).add_(part["b_mag"]).relu_()
    return size.masked_fill_(p + part["b_gate"] <= 0, 0.0)


def shapes(architecture: Architecture, d_in: int, d_sae: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    own = {
        "standard": ("b_enc",),
        "topk": ("b_enc",),
        "jumprelu": ("b_enc", "threshold"),
        "gated": ("b_gate", "b_mag", "r_mag"),
    }[architecture]
    common: dict[str, tuple[int, ...]] = {
        "W_enc": (d_in, d_sae),
        "W_dec": (d_sae, d_in),
        "b_dec": (d_in,),
    }
    return common | dict.fromkeys(own, (d_sae,))

"""How well an SAE gives back states that it was not fitted on, and what that must be held against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probes.latents.architectures import top_k
from probes.latents.autoencoder import SparseAutoencoder
from probes.latents.training import directions
from workbench.errors import ModelError

__all__ = ["Spectrum", "quality"]


@dataclass(frozen=True)
class Spectrum:
    """What PCA found on the part that was fitted on.

    Attributes:
        mean: [d] of the states.
        directions: [d, d] principal directions by falling variance, in columns.
    """

    mean: Tensor
    directions: Tensor


@torch.no_grad()
def quality(
    sae: SparseAutoencoder, parts: Iterable[Tensor], spectrum: Spectrum, k: int, seed: int
) -> dict[str, Any]:
    """Figures over states [N, d], part by part.

    Variance explained is 1 - sum |x - x^|^2 / sum |x - mean|^2 with the mean of the part fitted on, for
    the SAE, for the first k principal directions of that part, and for as many random directions of
    which each state takes the k that it lies along most, x^ = mean + g sum max(0, <x - mean, w>) w, with
    the g that serves it best on these very states.

    Returns:
        variance_explained, pca, random_dictionary, rank (k); l0, active latents of a token; inactive,
        share of the latents that no token activated; tokens.

    Raises:
        ModelError: the states do not vary.
    """
    rows = directions(sae.config.d_sae, sae.config.d_in, seed)
    sums = dict.fromkeys(("error", "total", "pca", "along", "random", "active", "tokens"), 0.0)
    seen = torch.zeros(sae.config.d_sae, dtype=torch.bool)
    for states in parts:
        latents = sae.encode(states)
        x = sae.target(states)
        centred = x.double() - spectrum.mean
        made = top_k((x - spectrum.mean.to(x)) @ rows.to(x).T, k) @ rows.to(x)
        sums["error"] += float((x - sae.decode(latents, states)).double().square().sum())
        sums["total"] += float(centred.square().sum())
        sums["pca"] += float((centred @ spectrum.directions[:, :k]).square().sum())
        sums["along"] += float((made.double() * centred).sum())
        sums["random"] += float(made.double().square().sum())
        sums["active"] += float((latents > 0).sum())
        sums["tokens"] += len(x)
        seen |= (latents > 0).any(0).cpu()
    if not sums["total"] > 0:
        raise ModelError(f"{sae}: the states held out do not vary: nothing to explain")
    random = sums["along"] ** 2 / sums["random"] if sums["random"] else 0.0  # none along any
    return {
        "variance_explained": 1 - sums["error"] / sums["total"],
        "pca": sums["pca"] / sums["total"],
        "random_dictionary": random / sums["total"],
        "rank": k,
        "l0": sums["active"] / sums["tokens"],
        "inactive": float((~seen).double().mean()),
        "tokens": int(sums["tokens"]),
    }

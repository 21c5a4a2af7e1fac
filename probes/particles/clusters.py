"""How many clusters there are, in effect: participation ratio, Vendi score, components."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.particles.sets import cosine_blocks, counts, filled, or_nan, row_slices, working_dtype

__all__ = ["component_labels", "components", "participation_ratio", "vendi"]


def _gram(u: Tensor) -> Tensor:
    """U U^T or U^T U, the smaller: same non-zero eigenvalues, and never larger than u."""
    return u @ u.mT if u.shape[-2] <= u.shape[-1] else u.mT @ u


def participation_ratio(u: Tensor, mask: Tensor) -> Tensor:
    """n^2 / ||U^T U||_F^2 = 1 / sum p^2, p the eigenvalues of U U^T / n.

    Vendi score of order 2 (Friedman and Dieng 2023; Pasarkar and Dieng 2024). From 1 (all tokens
    parallel) to min(n, d) (orthogonal). Of n random directions n d / (n + d - 1). For masses p on
    orthogonal axes it is 1 / sum p^2.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of no tokens.
    """
    gram = _gram(filled(u, mask))
    n = counts(mask, gram)
    return n.square() / gram.square().sum((-2, -1))


def vendi(u: Tensor, mask: Tensor) -> Tensor:
    """Effective number exp H(p), p the eigenvalues of U U^T / n, H in nats.

    Friedman and Dieng 2023 ("The Vendi Score"). From 1 to min(n, d), never below the participation
    ratio. Of n random directions nearly min(n, d), less by a factor of about
    exp(-min(n, d) / (2 max(n, d))). For masses p on orthogonal axes it is exp H(p).
    One eigenvalue problem a set, min(n, d)^3: dear beside the participation ratio.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of no tokens.
    """
    gram = _gram(filled(u, mask))
    n = counts(mask, gram)
    share = torch.linalg.eigvalsh(gram / n.clamp(min=1)[..., None, None]).clamp(min=0)
    return or_nan(torch.special.entr(share).sum(-1).exp(), n > 0)


def components(u: Tensor, mask: Tensor, threshold: float = 0.95) -> Tensor:
    """The number of connected components of the graph that joins tokens at a cosine above `threshold`.

    Single linkage cut at that cosine (Sibson 1973). From 1 to n; of n random directions n, at any
    threshold above their closest pair, about 2 sqrt(log(n) / d).

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.
        threshold: cosine above which two tokens are joined; strictly.

    Returns:
        [...]; NaN of no tokens.
    """
    labels = component_labels(u, mask, threshold)
    own = torch.arange(labels.shape[-1], device=labels.device)
    number = (labels == own).sum(-1).to(working_dtype(u))
    return or_nan(number, mask.any(-1))


def component_labels(u: Tensor, mask: Tensor, threshold: float = 0.95) -> Tensor:
    """[..., n] the first token of each token's component (see `components`), -1 where masked.

    Labels spread to neighbours, roots hook onto lower roots and pointers are halved, all sets at once,
    until nothing changes: O(log n) rounds (Zhang, Azad and Buluc 2020, FastSV). Keeps one byte a pair.
    """
    joined = torch.cat(
        [cosines > threshold for _, cosines in cosine_blocks(filled(u, mask))], dim=-2
    )
    joined &= mask[..., None] & mask[..., None, :]
    parent = torch.arange(joined.shape[-1], device=u.device).expand(mask.shape).clone()
    while True:
        lowest = torch.minimum(parent, _lowest(joined, parent))
        hooked = parent.scatter_reduce(-1, parent, lowest, "amin")
        hooked = torch.minimum(hooked, lowest)
        jumped = hooked.gather(-1, hooked)
        if torch.equal(jumped, parent):
            return parent.masked_fill(~mask, -1)
        parent = jumped


def _lowest(joined: Tensor, label: Tensor) -> Tensor:
    """[..., n] the lowest label among a token's neighbours; n where it has none."""
    n = joined.shape[-1]
    here = label[..., None, :]
    lowest = [
        torch.where(joined[..., rows, :], here, n).amin(-1) for rows in row_slices(label.shape)
    ]
    return torch.cat(lowest, dim=-1)

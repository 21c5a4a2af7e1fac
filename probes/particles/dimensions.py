"""How much the few largest dimensions carry of the states' energy and of their mean cosine."""

from __future__ import annotations

from torch import Tensor

from probes.particles.sets import filled

__all__ = ["cosine_share", "energy_share", "share_of_largest"]


def share_of_largest(parts: Tensor, k: int = 3) -> Tensor:
    """[...] what the k largest of parts [..., d] are of their sum."""
    return parts.topk(min(k, parts.shape[-1]), dim=-1).values.sum(-1) / parts.sum(-1)


def energy_share(x: Tensor, mask: Tensor, k: int = 3) -> Tensor:
    """The part of sum ||x_i||^2 that lies in the k dimensions with the most of it.

    Timkey and van Schijndel 2021 ("All bark and no bite: rogue dimensions"). From k / d to 1; of n
    random directions k / d, somewhat more for small n. Depends on the basis, as it should.

    Args:
        x: [..., n, d] states or unit vectors.
        mask: [..., n] True where a token counts.
        k: how many dimensions.

    Returns:
        [...]; NaN of no tokens.
    """
    return share_of_largest(filled(x, mask).square().sum(-2), k)


def cosine_share(u: Tensor, mask: Tensor, k: int = 3) -> Tensor:
    """The part of ||S||^2, S = sum u_i, that lies in the k dimensions with the most of it.

    Of the mean cosine, pairs i = j among them: a share near 1 says that the tokens agree in k numbers
    and no more (Timkey and van Schijndel 2021, section 3). From k / d to 1; of n random directions
    about 2 k log(d / k) / d for small k.

    Args:
        u: [..., n, d] unit vectors.
        mask: [..., n] True where a token counts.
        k: how many dimensions.

    Returns:
        [...]; NaN of no tokens.
    """
    return share_of_largest(filled(u, mask).sum(-2).square(), k)

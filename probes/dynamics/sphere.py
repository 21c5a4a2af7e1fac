"""Unit vectors: normalising, tangent projection, and where tokens start."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.errors import SettingError

__all__ = [
    "angles",
    "equiangular",
    "generator",
    "near_uniform",
    "on_circle",
    "project",
    "scattered",
    "tangent_basis",
    "unit",
]


def unit(x: Tensor) -> Tensor:
    """Directions x / ||x|| over the last axis; a zero vector stays zero, since it has no direction."""
    length: Tensor = x.norm(dim=-1, keepdim=True)
    return x / length.clamp_min(torch.finfo(x.dtype).tiny)


def project(u: Tensor, y: Tensor) -> Tensor:
    """P_u y = y - <u, y> u, the part of `y` tangent to the sphere at the unit vectors `u`."""
    return y - (u * y).sum(-1, keepdim=True) * u


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A seeded source of random numbers of its own."""
    return torch.Generator(device).manual_seed(seed)


def scattered(
    *shape: int, seed: int = 0, hemisphere: bool = False, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Independent uniform unit vectors of `shape` [..., n, d].

    Args:
        shape: sizes of the axes.
        seed: of the random numbers, which are the same on every device.
        hemisphere: mirrored into the half sphere of positive first coordinates.
        dtype: of the vectors.
    """
    x = unit(torch.randn(shape, generator=generator(seed), dtype=dtype))
    return torch.where(x[..., :1] < 0, -x, x) if hemisphere else x


def equiangular(
    n: int, d: int, cosine: float | Tensor, dtype: torch.dtype = torch.float64
) -> Tensor:
    """[..., n, d] unit vectors of which every two have the same cosine, one system a cosine.

    Raises:
        SettingError: d < n, or a cosine outside of (-1/(n-1), 1], for which there are none.
    """
    gamma = torch.as_tensor(cosine, dtype=dtype)[..., None, None]
    least = -1 / (n - 1) if n > 1 else -1.0
    if d < n or bool((gamma <= least).any()) or bool((gamma > 1).any()):
        raise SettingError(
            f"{n} equiangular tokens need d >= {n} and a cosine in ({least:.3g}, 1]: "
            f"got d = {d}, cosine {cosine}"
        )
    eye = torch.eye(n, d, dtype=dtype)
    mean = eye.mean(0, keepdim=True)
    # Apart from the mean direction the axes scale by sqrt(1 - gamma), along it so as to stay of norm 1.
    return (eye - mean) * (1 - gamma).sqrt() + mean * (1 + (n - 1) * gamma).sqrt()


def on_circle(angle: Tensor) -> Tensor:
    """[..., n] angles -> [..., n, 2] unit vectors."""
    return torch.stack([angle.cos(), angle.sin()], -1)


def angles(x: Tensor) -> Tensor:
    """[..., n, 2] -> [..., n] angles in (-pi, pi]."""
    return torch.atan2(x[..., 1], x[..., 0])


def near_uniform(*shape: int, spread: float, seed: int = 0) -> Tensor:
    """[..., n, 2] equally spaced on the circle but for normal disturbances of `spread` rad."""
    n = shape[-1]
    even = torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n)
    noise = torch.randn(shape, generator=generator(seed), dtype=torch.float64)
    return on_circle(even + spread * noise)


def tangent_basis(x: Tensor) -> Tensor:
    """[n, d] -> [n, d, d-1] orthonormal bases of the tangent spaces at x / ||x||."""
    q, _ = torch.linalg.qr(unit(x)[..., None], mode="complete")
    basis: Tensor = q[..., 1:]
    return basis

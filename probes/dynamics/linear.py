"""What the dynamics do to small displacements: Jacobians, fixed points, the flow map and its inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from probes.dynamics.flow import Law, Method, advance, require_tokens
from probes.dynamics.sphere import tangent_basis, unit
from workbench.errors import SettingError

__all__ = ["FixedPoint", "FlowMap", "fixed_point", "flow_map", "push", "tangent_jacobian"]

Map = Callable[[Tensor], Tensor]


def push(function: Map, x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Both f(x) and Df(x) direction, by forward differentiation.

    The fused back ends of attention know no forward derivative, so that the plain one is used.
    """
    with sdpa_kernel(SDPBackend.MATH):
        found = torch.func.jvp(function, (x,), (direction,))
    return found[0], found[1]


def tangent_jacobian(function: Map, x: Tensor) -> Tensor:
    """[n (d-1), n (d-1)] Jacobian of a map of tokens on the sphere, at x [n, d].

    In orthonormal bases of the tangent spaces at x and at f(x). Of a field, whose values are no tokens,
    `fixed_point` has the spectrum.
    """
    return _jacobian(function, x, tangent_basis(function(x)))


def _jacobian(function: Map, x: Tensor, out: Tensor) -> Tensor:
    n, d = x.shape
    basis = tangent_basis(x)
    # One direction a token and tangent axis: [n, d-1, n, d].
    directions = (
        torch.eye(n, dtype=x.dtype, device=x.device)[:, None, :, None] * basis.mT[:, :, None]
    )
    flat = directions.reshape(n * (d - 1), n, d)
    with sdpa_kernel(SDPBackend.MATH):
        slopes = torch.func.vmap(lambda v: torch.func.jvp(function, (x,), (v,))[1])(flat)
    inside = torch.einsum("jnd,nde->jne", slopes, out)
    return inside.reshape(n * (d - 1), n * (d - 1)).mT


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """A state that rests.

    Attributes:
        x: [n, d] the tokens.
        residual: the largest speed of a token there; say it beside any claim.
        spectrum: [n (d-1)] complex eigenvalues of the tangent Jacobian, by falling real part; unstable
            where the first is above 0.
    """

    x: Tensor
    residual: float
    spectrum: Tensor

    @property
    def unstable(self) -> int:
        """How many directions grow, above rounding."""
        return int((self.spectrum.real > 1e-8).sum())


def fixed_point(
    law: Law, x: Tensor, *, iterations: int = 50, tolerance: float = 1e-12
) -> FixedPoint:
    """The fixed point of a field on the sphere that Newton's method finds from x [n, d]; also saddles.

    Steps are least-squares ones, since a rotation of all tokens costs nothing, and no longer than 0.5 rad.
    The search ends at a residual below `tolerance`, or after `iterations`: read the residual.

    Raises:
        SettingError: x is not [n, d], a token has no direction, or a `Field` moves tokens off the sphere.
    """
    if x.dim() != 2:
        raise SettingError(f"fixed points are of one system [n, d]: got {list(x.shape)}")
    if not getattr(law, "on_sphere", True):
        raise SettingError(
            f"fixed points are of tokens on the sphere: norm={getattr(law, 'norm', None)!r}"
        )
    require_tokens(x)
    x = unit(x)

    def field(y: Tensor) -> Tensor:
        return law(0.0, y)

    for _ in range(iterations):
        speed = field(x)
        if float(speed.norm(dim=-1).max()) < tolerance:
            break
        basis = tangent_basis(x)
        wanted = -torch.einsum("nd,nde->ne", speed, basis).reshape(-1)
        inverse = torch.linalg.pinv(_jacobian(field, x, basis), rtol=1e-10)
        step = torch.einsum("ne,nde->nd", (inverse @ wanted).reshape(len(x), -1), basis)
        x = unit(x + step * (0.5 / step.norm(dim=-1).max()).clamp(max=1))
    spectrum = torch.linalg.eigvals(_jacobian(field, x, tangent_basis(x)))
    order = spectrum.real.argsort(descending=True)
    return FixedPoint(x, float(field(x).norm(dim=-1).max()), spectrum[order])


@dataclass(frozen=True, eq=False)
class FlowMap:
    """The tokens after a time, and how well the way back is conditioned.

    Attributes:
        x: [n, d] after the time.
        singular_values: [n (d-1)] of the map's tangent Jacobian, falling. The exact flow is always
            invertible, the last of these never 0; it says how much of a difference is left.
        inverse_error: the largest distance between a token and itself, there and back.
    """

    x: Tensor
    singular_values: Tensor
    inverse_error: float


def flow_map(law: Law, x: Tensor, time: float, steps: int, *, method: Method = "rk4") -> FlowMap:
    """Where tokens x [n, d] on the sphere go, there and back, and the map's singular values.

    Raises:
        SettingError: x is not [n, d], and what `advance` refuses.
    """
    if x.dim() != 2:
        raise SettingError(f"flow maps are of one system [n, d]: got {list(x.shape)}")
    x = unit(x)

    def there(y: Tensor) -> Tensor:
        return advance(law, y, time, steps, method=method)

    moved = there(x)
    again = advance(law, moved, -time, steps, method=method, start=time)
    values = torch.linalg.svdvals(tangent_jacobian(there, x))
    return FlowMap(moved, values, float((again - x).norm(dim=-1).max()))

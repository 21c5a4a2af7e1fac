"""The law of motion: self-attention as a vector field on tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from probes.dynamics.sphere import project, unit
from workbench.errors import SettingError

__all__ = ["Differential", "Field", "Kernel", "Norm"]

Kernel = Literal["sa", "usa"]
Norm = Literal["post", "pre", "peri"]

SCORES = 1 << 23  # unnormalised attention holds at most so many scores at a time


@dataclass(frozen=True)
class Differential:
    """What differential attention takes off: `weight` times a second attention, of the same values.

    Source: Ye et al. 2024, "Differential Transformer", arXiv 2410.05258.

    Attributes:
        weight: lambda of A1 - lambda A2.
        beta: inverse temperature of A2.
        q, k: [d, d] query and key maps of A2; the identity where None.
    """

    weight: float
    beta: float | Tensor
    q: Tensor | None = None
    k: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Field:
    """Velocities dx_i/dt of tokens x [..., n, d].

    With u = x / ||x|| and s_ij = <Q u_i, K u_j>:

    - kernel "sa":  A_i = sum_j softmax_j(beta s_ij) V u_j
    - kernel "usa": A_i = 1/n sum_j exp(beta (s_ij - 1)) V u_j: *time is in units of exp(-beta)*, since
      without it rates of 1e-9 to 1e9 stand beside each other (t of the papers is t here times exp(-beta))
    - norm "post": x_i' = P_{u_i} A_i, on the sphere; "pre": x_i' = A_i; "peri": x_i' = A_i / ||A_i||,
      both in R^d, where norms grow and directions slow down.

    Normalising is part of the field. A field that changes in time is any function (t, x) -> dx/dt, such
    as `lambda t, x: Field(beta=schedule(t))(t, x)`. Kuramoto's model with coupling K is d = 2, beta = 0,
    v = K times the identity, with `frequencies`.

    Sources: Geshkovski et al., arXiv 2312.10794; causal: Karagodin et al. 2024, arXiv 2411.04990;
    pre- and peri-LN: Rigollet, arXiv 2512.01868.

    Attributes:
        beta: inverse temperature, a number or one for each system [...].
        kernel, norm: as above.
        causal: token i sees the tokens up to i alone; "usa" divides by how many it sees.
        q, k, v: [d, d] maps that turn a column vector; the identity where None.
        mask: [..., n], True where a token counts; what stands elsewhere changes nothing and rests.
        frequencies: [..., n] natural frequencies in rad per unit of time; only for d = 2 and "post".
        minus: a second attention to take off; of "usa" in the units of time of the first.

    Raises:
        SettingError: an unknown kernel or norm, a beta that is not finite, or frequencies off the sphere.
    """

    beta: float | Tensor = 1.0
    kernel: Kernel = "sa"
    norm: Norm = "post"
    causal: bool = False
    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    mask: Tensor | None = None
    frequencies: Tensor | None = None
    minus: Differential | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kernel", self.kernel, get_args(Kernel)),
            ("norm", self.norm, get_args(Norm)),
        ):
            if value not in known:
                raise SettingError(f"{name} is {value!r}: expected one of {', '.join(known)}")
        temperatures = [self.beta] if self.minus is None else [self.beta, self.minus.beta]
        for beta in temperatures:
            if not torch.as_tensor(beta).isfinite().all():
                raise SettingError(f"beta is {beta}: expected finite numbers")
        if self.frequencies is not None and self.norm != "post":
            raise SettingError(f"natural frequencies turn tokens on the circle: norm={self.norm!r}")

    def __call__(self, t: float | Tensor, x: Tensor) -> Tensor:
        """[..., n, d] velocities; `t` changes nothing."""
        x = self._sound(x)
        u = unit(x)
        moved = self._from_attention(u)
        if self.frequencies is not None:
            moved = moved + self._turning(u, self.frequencies)
        return moved if self.mask is None else torch.where(self.mask[..., None], moved, 0)

    def attention(self, x: Tensor) -> Tensor:
        """[..., n, d] A_i of the tokens as they are, not normalised: a layer of attention alone."""
        x = self._sound(x)
        values = _mapped(x, self.v)
        found = self._attend(self.beta, _mapped(x, self.q), _mapped(x, self.k), values)
        if self.minus is None:
            return found
        less = self.minus
        second = self._attend(less.beta, _mapped(x, less.q), _mapped(x, less.k), values)
        if self.kernel == "usa":
            second = self._in_own_time(less.beta, second)
        return found - less.weight * second

    def layer(self, x: Tensor, h: float) -> Tensor:
        """[..., n, d] normalise(u + h A(u)): one layer of an attention-only post-RMSNorm network."""
        u = unit(self._sound(x))
        return unit(u + h * self.attention(u))

    @property
    def on_sphere(self) -> bool:
        """Whether tokens stay on the unit sphere."""
        return self.norm == "post"

    @property
    def rotational(self) -> bool:
        """Whether Q'K and V are sure to be multiples of the identity, so that rotations commute."""
        maps = [self.q, self.k, self.v, self.frequencies]
        maps += [self.minus.q, self.minus.k] if self.minus is not None else []
        return all(one is None for one in maps)

    def _sound(self, x: Tensor) -> Tensor:
        return x if self.mask is None else torch.where(self.mask[..., None], x, 0)

    def _in_own_time(self, beta: float | Tensor, second: Tensor) -> Tensor:
        """A second attention, which is in units of exp(-beta) of its own, in units of the first's."""
        ahead = torch.as_tensor(beta, dtype=second.dtype, device=second.device) - self.beta
        return second * ahead.exp()[..., None, None]

    def _from_attention(self, u: Tensor) -> Tensor:
        force = self.attention(u)
        if self.norm == "pre":
            return force
        return unit(force) if self.norm == "peri" else project(u, force)

    def _turning(self, u: Tensor, frequencies: Tensor) -> Tensor:
        if u.shape[-1] != 2:
            raise SettingError(
                f"natural frequencies are of d = 2: the tokens have d = {u.shape[-1]}"
            )
        return frequencies[..., None] * torch.stack([-u[..., 1], u[..., 0]], -1)

    def _attend(self, beta: float | Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not isinstance(beta, Tensor) and beta == 0:
            return self._mean(v)
        wide = torch.as_tensor(beta, dtype=q.dtype, device=q.device)[..., None, None]
        return self._softmax(wide * q, k, v) if self.kernel == "sa" else self._exp(wide, q, k, v)

    def _mean(self, v: Tensor) -> Tensor:
        """Without beta every visible token weighs the same, so that sums are enough, O(n)."""
        seen = v.new_ones(v.shape[:-1]) if self.mask is None else self.mask.to(v.dtype)
        if self.causal:
            return v.cumsum(-2) / seen.cumsum(-1).clamp_min(1)[..., None]
        return (v.sum(-2) / seen.sum(-1).clamp_min(1)[..., None])[..., None, :].expand_as(v)

    def _softmax(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape = q.shape
        # Four axes are what the fused back ends take.
        q, k, v = (one.reshape(-1, 1, *shape[-2:]) for one in (q, k, v))
        visible = self._visible(shape)
        alone = self.causal and visible is None
        bias = None if visible is None else visible.reshape(-1, 1, *visible.shape[-2:])
        found: Tensor = scaled_dot_product_attention(q, k, v, bias, is_causal=alone, scale=1.0)
        return found.reshape(shape)

    def _visible(self, shape: torch.Size) -> Tensor | None:
        """Which keys each query sees, [..., n or 1, n]; None where the mask is full or causal alone."""
        if self.mask is None:
            return None
        keys = self.mask.expand(shape[:-1])[..., None, :]
        if not self.causal:
            return keys
        n = shape[-2]
        eye = torch.eye(n, dtype=torch.bool, device=keys.device)
        # A padded query sees itself, so that no row is empty; its velocity is dropped.
        return (keys & torch.ones_like(eye).tril()) | eye

    def _exp(self, beta: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n = q.shape[-2]
        rows = max(1, SCORES // max(1, k[..., 0].numel()))
        parts = [
            self._exp_rows(beta, q[..., at : at + rows, :], k, v, at) for at in range(0, n, rows)
        ]
        return torch.cat(parts, -2)

    def _exp_rows(self, beta: Tensor, q: Tensor, k: Tensor, v: Tensor, first: int) -> Tensor:
        """Rows from `first` on: weights / how many are visible, times values."""
        weights = (beta * (q @ k.mT - 1)).exp_()
        visible = self._visible_rows(q, k, first)
        if visible is None:
            return weights @ v / k.shape[-2]
        weights = torch.where(visible, weights, 0)
        return weights @ v / visible.sum(-1, keepdim=True).clamp_min(1)

    def _visible_rows(self, q: Tensor, k: Tensor, first: int) -> Tensor | None:
        visible = None if self.mask is None else self.mask[..., None, :]
        if not self.causal:
            return visible
        rows = torch.arange(first, first + q.shape[-2], device=q.device)
        before = torch.arange(k.shape[-2], device=q.device) <= rows[:, None]
        return before if visible is None else visible & before


def _mapped(x: Tensor, matrix: Tensor | None) -> Tensor:
    return x if matrix is None else x @ matrix.mT

"""Integration in time: Euler, Heun and RK4 with normalised stages, noise, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from probes.dynamics.sphere import generator, project, unit
from workbench.errors import SettingError
from workbench.simulation import Pace, unpaced

__all__ = ["Law", "Method", "Noise", "advance", "record", "require_tokens"]

Law = Callable[[float, Tensor], Tensor]
Method = Literal["euler", "heun", "rk4"]
Step = Callable[[Law, Callable[[Tensor], Tensor], float, Tensor, float], Tensor]


@dataclass(frozen=True)
class Noise:
    """Brownian motion on the sphere: dx = F dt + sqrt(2 temperature) P_x o dW (Stratonovich).

    Attributes:
        temperature: kappa = 1 / temperature is the coupling of the noisy model.
        seed: of the increments.

    Raises:
        SettingError: a temperature below 0 or not finite.
    """

    temperature: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise SettingError(f"temperature is {self.temperature}: expected a number, 0 or above")


def advance(
    law: Law,
    x: Tensor,
    time: float,
    steps: int,
    *,
    method: Method = "heun",
    sphere: bool = True,
    start: float = 0.0,
    noise: Noise | None = None,
    pace: Callable[[], None] | None = None,
) -> Tensor:
    """[..., n, d] the tokens after `time`, in equal steps; a negative time goes back.

    On the sphere every stage is normalised before the law sees it, and so is the result; this keeps
    the order of the method (Heun 2, RK4 4). Below float32 the tokens are moved in float32.

    Args:
        law: (t, x) -> dx/dt, such as a `Field`.
        x: [..., n, d].
        time: how long; steps: in how many steps.
        method: "euler", "heun" or "rk4".
        sphere: whether tokens live on the unit sphere (False for pre- and peri-LN).
        start: time at which `x` is.
        noise: on the sphere alone; half of a step's before its drift, half after it (Strang).
        pace: called after each step; what it raises ends the run.

    Raises:
        SettingError: an unknown method, no steps, noise where it is not defined, a `Field` off the sphere
            without sphere=False, or a token without a direction that a `Field`'s mask does not leave out.
    """
    _require(method, steps, sphere or noise is None)
    if sphere and not getattr(law, "on_sphere", True):
        raise SettingError(
            f"norm={getattr(law, 'norm', None)!r} moves tokens off the sphere: give sphere=False"
        )
    require_tokens(x.detach(), getattr(law, "mask", None))
    back = unit if sphere else _same
    x = back(x if x.dtype in (torch.float32, torch.float64) else x.float())
    h = time / steps
    kick = _kicks(noise, h, x.device)
    for index in range(steps):
        x = kick(STEPS[method](law, back, start + index * h, kick(x), h))
        if pace is not None:
            pace()
    return x


def record(
    law: Law,
    x: Tensor,
    times: Sequence[float],
    see: Callable[[Tensor], Tensor],
    *,
    longest: float,
    method: Method = "heun",
    sphere: bool = True,
    noise: Noise | None = None,
    pace: Pace = unpaced,
) -> Tensor:
    """[len(times), ...] what `see` makes of the tokens at each of the times, of which 0 is `x`.

    Between two times the steps are equal and no longer than `longest`. States are not kept. `pace` is
    called after each step.

    Raises:
        SettingError: the times do not rise from 0 on.
    """
    if list(times) != sorted(times) or not times or times[0] < 0:
        raise SettingError("times are to rise from 0 on")
    spans = [then - now for now, then in pairwise((0.0, *times))]
    counts = [max(1, math.ceil(span / longest - 1e-9)) if span > 0 else 0 for span in spans]
    done, now, found = count(1), 0.0, []
    for index, (then, steps) in enumerate(zip(times, counts, strict=True)):
        if steps:
            fresh = None if noise is None else Noise(noise.temperature, noise.seed * 7919 + index)
            x = advance(
                law,
                x,
                then - now,
                steps,
                method=method,
                sphere=sphere,
                start=now,
                noise=fresh,
                pace=lambda: pace(next(done), sum(counts)),
            )
            now = then
        found.append(see(x))
    return torch.stack(found)


def require_tokens(x: Tensor, mask: Tensor | None = None) -> None:
    """Refuse tokens that have no direction.

    Raises:
        SettingError: a token that counts is zero or not finite; it is named.
    """
    norm = x.norm(dim=-1)
    bad = ~(norm.isfinite() & (norm > 0))
    bad = bad if mask is None else bad & mask
    if bool(bad.any()):
        where = bad.nonzero()[0].tolist()
        raise SettingError(
            f"token {where[-1]} (at {where}) is zero or not finite: it has no direction"
        )


def _require(method: str, steps: int, at_home: bool) -> None:
    if method not in get_args(Method):
        raise SettingError(f"method is {method!r}: expected one of {', '.join(get_args(Method))}")
    if steps < 1:
        raise SettingError(f"{steps} steps: expected at least 1")
    if not at_home:
        raise SettingError("noise is of tokens on the sphere: norm='post'")


def _same(x: Tensor) -> Tensor:
    return x


def _euler(law: Law, back: Callable[[Tensor], Tensor], t: float, x: Tensor, h: float) -> Tensor:
    return back(x + h * law(t, x))


def _heun(law: Law, back: Callable[[Tensor], Tensor], t: float, x: Tensor, h: float) -> Tensor:
    one = law(t, x)
    two = law(t + h, back(x + h * one))
    return back(x + h / 2 * (one + two))


def _rk4(law: Law, back: Callable[[Tensor], Tensor], t: float, x: Tensor, h: float) -> Tensor:
    one = law(t, x)
    two = law(t + h / 2, back(x + h / 2 * one))
    three = law(t + h / 2, back(x + h / 2 * two))
    four = law(t + h, back(x + h * three))
    return back(x + h / 6 * (one + 2 * two + 2 * three + four))


STEPS: dict[str, Step] = {"euler": _euler, "heun": _heun, "rk4": _rk4}


def _kicks(noise: Noise | None, h: float, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The noise of half a step; nothing where there is none."""
    if noise is None:
        return _same
    random = generator(noise.seed, device)
    size = math.sqrt(noise.temperature * abs(h))
    return lambda x: _kicked(x, size, random)


def _kicked(x: Tensor, size: float, random: torch.Generator) -> Tensor:
    """Each token moved along a great circle by a normal tangent vector of `size` rad a direction."""
    kick = project(x, torch.randn(x.shape, generator=random, dtype=x.dtype, device=x.device))
    angle = size * kick.norm(dim=-1, keepdim=True)
    return unit(angle.cos() * x + angle.sin() * unit(kick))

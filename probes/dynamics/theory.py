"""Closed forms of the dynamics, in float64. Time of "usa" is in units of exp(-beta), as in `Field`.

Sources: equiangular and high-dimensional law, hemisphere rates: Geshkovski et al., arXiv 2312.10794;
growth of modes, metastability: Geshkovski, Koubbi, Polyanskiy, Rigollet 2024, arXiv 2410.06833; noise:
Bertini, Giacomin, Pakdaman 2010; Lorentzian frequencies: Kuramoto 1975; finite n at beta = 0: Watanabe,
Strogatz 1994.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probes.dynamics.field import Kernel
from workbench.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "HEMISPHERE_RATE",
    "KAPPA_C",
    "crossover",
    "equiangular",
    "equiangular_rate",
    "growth",
    "lorentzian_order",
    "merging_time",
    "most_unstable",
    "noisy_order",
    "two_cluster_rate",
    "two_tokens",
    "watanabe_strogatz",
]

Floats = NDArray[np.float64]

HEMISPHERE_RATE = 1.0
"""Rate at which tokens of one half sphere meet at last, ||x_i - x*|| ~ e^{-t}, for both kernels.

For "usa" that is e^beta in the papers' units of time, of which `Field` takes exp(-beta).
"""

KAPPA_C = 2.0
"""Coupling over temperature at which noisy beta = 0 dynamics on the circle orders (mean field)."""


def equiangular_rate(
    gamma: ArrayLike, beta: ArrayLike, n: ArrayLike, kernel: Kernel = "sa"
) -> Floats:
    """The rate d gamma / dt of the cosine that every two of n tokens have in common; arguments broadcast.

    sa:  2 e^{beta gamma} (1 - gamma) ((n-1) gamma + 1) / (e^beta + (n-1) e^{beta gamma})
    usa: 2/n e^{beta (gamma - 1)} (1 - gamma) ((n-1) gamma + 1)

    Exact for an equiangular start, and the limit of d to infinity for a random one (gamma_0 = 0).
    """
    gamma, beta, n = (np.asarray(one, np.float64) for one in (gamma, beta, n))
    weight = np.exp(beta * (gamma - 1))
    shape = 2 * weight * (1 - gamma) * ((n - 1) * gamma + 1)
    found: Floats = shape / (1 + (n - 1) * weight) if kernel == "sa" else shape / n
    return found


def equiangular(
    gamma: float, times: ArrayLike, beta: float, n: int, kernel: Kernel = "sa"
) -> Floats:
    """The common cosine at each of the times (rising from 0), from `gamma` on.

    Raises:
        SettingError: times that do not rise from 0.
    """
    from scipy.integrate import solve_ivp

    asked = np.atleast_1d(np.asarray(times, np.float64))
    if not (
        asked.size and asked[0] >= 0 and (np.diff(asked) >= 0).all() and np.isfinite(asked[-1])
    ):
        raise SettingError(f"times are {times!r}: expected finite numbers that rise from 0")
    if asked[-1] == 0:
        return np.full(asked.shape, gamma)
    found = solve_ivp(
        lambda _, g: equiangular_rate(g, beta, n, kernel),
        (0.0, asked[-1]),
        [gamma],
        method="DOP853",
        t_eval=asked,
        rtol=1e-12,
        atol=1e-14,
    )
    cosines: Floats = found.y[0]
    return cosines


def crossover(
    beta: float, n: int, *, start: float = 0.0, level: float = 0.5, kernel: Kernel = "sa"
) -> float:
    """The crossover t*(beta): the time that the common cosine takes from `start` to `level`, by quadrature.

    A crossover in depth, and no transition: at every beta all tokens meet in the end. 0 of a start above
    `level`; NaN where the start rests or the time is above every float64.
    """
    if start >= level:
        return 0.0
    # The rate is least at the start.
    if equiangular_rate(start, beta, n, kernel) <= np.finfo(np.float64).tiny:
        return float("nan")
    return _time(lambda g: float(equiangular_rate(g, beta, n, kernel)), start, level)


def growth(k: ArrayLike, beta: ArrayLike, kernel: Kernel = "sa") -> Floats:
    """Rate of growth of the mode cos(k theta) about uniform tokens on the circle.

    k^2 I_k(beta) / beta times exp(-beta) for "usa", over I_0(beta) for "sa".
    """
    from scipy.special import ive

    k, beta = np.asarray(k, np.float64), np.asarray(beta, np.float64)
    scaled: Floats = k**2 * ive(k, beta) / beta
    return scaled if kernel == "usa" else scaled / ive(0, beta)


def most_unstable(beta: float) -> int:
    """The mode argmax_k k^2 I_k(beta): about how many clusters a near-uniform circle first makes."""
    k = np.arange(1, int(4 * np.sqrt(beta)) + 10)
    return int(k[np.argmax(growth(k, beta))])


def two_tokens(angle: ArrayLike, t: ArrayLike) -> Floats:
    """The angle between two tokens at beta = 0: tan(phi/2) shrinks as e^{-t}."""
    found: Floats = 2 * np.arctan(np.tan(np.asarray(angle) / 2) * np.exp(-np.asarray(t)))
    return found


def two_cluster_rate(angle: ArrayLike, share: float, beta: float, kernel: Kernel = "sa") -> Floats:
    """The rate d angle / dt between two clusters with shares `share` and 1 - share of all tokens."""
    phi = np.asarray(angle, np.float64)
    weight = np.exp(beta * (np.cos(phi) - 1))
    if kernel == "usa":
        return np.asarray(-np.sin(phi) * weight)
    p, q = share, 1 - share
    pull = q * weight / (p + q * weight) + p * weight / (q + p * weight)
    return np.asarray(-np.sin(phi) * pull)


def merging_time(
    angle: float, to: float, share: float, beta: float, kernel: Kernel = "sa"
) -> float:
    """How long two clusters take from `angle` to the smaller angle `to`, by quadrature."""
    return _time(lambda phi: float(two_cluster_rate(phi, share, beta, kernel)), angle, to)


def noisy_order(kappa: float) -> float:
    """The order r of noisy beta = 0 dynamics on the circle: r = I_1(kappa r) / I_0(kappa r); 0 up to KAPPA_C.

    kappa = 1 / temperature of `Noise`. Of infinitely many tokens; of n there are fluctuations.
    """
    from scipy.optimize import brentq
    from scipy.special import ive

    if kappa <= KAPPA_C:
        return 0.0
    # I_1/I_0(x) = x/2 (1 - x^2/8 + ...) gives r up to a share of order r^2, from below.
    small = float(np.sqrt(2 * (kappa / 2 - 1) / (kappa / 2) ** 3))
    if kappa - KAPPA_C < 1e-8:
        return small  # map and r differ by less than the rounding of the Bessel functions
    low = min(small / 2, 0.5)
    return float(brentq(lambda r: ive(1, kappa * r) / ive(0, kappa * r) - r, low, 1.0))


def lorentzian_order(coupling: float, width: float) -> float:
    """The order r = sqrt(1 - 2 width / coupling) of Kuramoto's model with Lorentzian frequencies; 0 below."""
    return float(np.sqrt(max(0.0, 1 - 2 * width / coupling)))


def watanabe_strogatz(angles: ArrayLike, t: float, frequency: float = 0.0) -> Floats:
    """[n] angles after `t` of n tokens on the circle at beta = 0, by three variables for any n.

    Every token moves by one Moebius map M(w) = (e^{i psi} w + z) / (1 + conj(z) e^{i psi} w) with
    z' = i omega z + (H - conj(H) z^2)/2, psi' = omega + Im(H conj(z)), H the mean of the tokens.
    """
    from scipy.integrate import solve_ivp

    first = np.exp(1j * np.asarray(angles, np.float64))

    def moved(state: Floats) -> NDArray[np.complex128]:
        z, turned = state[0] + 1j * state[1], np.exp(1j * state[2]) * first
        return np.asarray((turned + z) / (1 + np.conj(z) * turned))

    def rate(_: float, state: Floats) -> list[float]:
        z, h = state[0] + 1j * state[1], moved(state).mean()
        dz = 1j * frequency * z + (h - np.conj(h) * z**2) / 2
        return [dz.real, dz.imag, frequency + (h * np.conj(z)).imag]

    found = solve_ivp(rate, (0.0, t), [0.0, 0.0, 0.0], method="DOP853", rtol=1e-13, atol=1e-14)
    return np.angle(moved(found.y[:, -1]))


def _time(rate: Callable[[float], float], start: float, end: float) -> float:
    from scipy.integrate import quad

    found, _ = quad(
        lambda value: 1 / rate(value), start, end, epsabs=1e-13, epsrel=1e-12, limit=200
    )
    return float(found)

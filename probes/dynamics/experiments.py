"""Three experiments, each a set of settings that is called: a run, a phase diagram, a staircase."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.dynamics import theory
from probes.dynamics.field import Field, Kernel, Norm
from probes.dynamics.flow import Noise, record
from probes.dynamics.observables import clusters, energy, mean_cosine, order_parameter
from probes.dynamics.reduction import reduced
from probes.dynamics.sphere import scattered
from workbench.errors import SettingError
from workbench.models.pretrained import chosen_device
from workbench.shown import Shown
from workbench.tidy import plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["PhaseDiagram", "Run", "Simulated", "Staircase"]

SEEN = ("mean_cosine", "order_parameter", "energy", "clusters")
LEVEL = 0.5  # the mean cosine that marks the crossover
LONGEST = 1.0  # step: clusters hold together at rate 1; beyond 2 Heun's method throws them apart
SEEDS = 2**32


@dataclass(frozen=True, eq=False)
class Simulated(Shown):
    """What an experiment saw.

    Attributes:
        of: the experiment and its settings.
        times: [T].
        betas: [B].
        seen: by name, [T, B, seeds]: mean_cosine, order_parameter, energy (over its maximum, which it has
            when all tokens are one) and clusters (components at cosines above 0.95).
        curves: the theory's own numbers [B]: for a phase diagram the times "crossover", t*(beta) of an
            equiangular start of cosine 0, and "crossover_from_start", of the mean cosine that the seeds
            start at; 0 where that is above one half, NaN where the time is above every float64.
    """

    of: Run | PhaseDiagram | Staircase
    times: NDArray[np.float64]
    betas: NDArray[np.float64]
    seen: dict[str, NDArray[np.float64]]
    curves: dict[str, NDArray[np.float64]]

    @property
    def settings(self) -> dict[str, Any]:
        """The experiment's settings by name."""
        return asdict(self.of)

    def rows(self) -> list[dict[str, Any]]:
        """One row a beta, seed and time; the theory's numbers beside what was seen."""
        times, betas, seeds = next(iter(self.seen.values())).shape
        return [
            {"beta": plain(self.betas[b]), "seed": seed, "time": plain(self.times[t])}
            | {name: plain(values[t, b, seed]) for name, values in self.seen.items()}
            | {name: plain(np.float64(values[b])) for name, values in self.curves.items()}
            for b in range(betas)
            for seed in range(seeds)
            for t in range(times)
        ]

    def crossings(self) -> NDArray[np.float64]:
        """[B, seeds] the time at which the mean cosine first passes one half; NaN where it does not."""
        cosine = self.seen["mean_cosine"]
        passed = cosine >= LEVEL
        after = passed.argmax(0)
        before = np.maximum(after - 1, 0)
        low, high = (np.take_along_axis(cosine, at[None], 0)[0] for at in (before, after))
        # Linear between two readings, which are close.
        share = np.divide(LEVEL - low, high - low, out=np.zeros_like(low), where=high > low)
        found = self.times[before] + share * (self.times[after] - self.times[before])
        return np.where(passed.any(0), found, np.nan)

    def plot(self, theme: str = "light") -> go.Figure:
        """The experiment's figure."""
        from probes.dynamics.figures import figure

        return figure(self, theme)

    def __repr__(self) -> str:
        sizes = f"{len(self.betas)} betas, {self.of.seeds} seeds, {len(self.times)} times"
        return f"<{type(self.of).__name__}: {self.of.tokens} tokens, {sizes}>"


@dataclass(frozen=True)
class _Experiment:
    """Settings that all have.

    Attributes:
        betas: inverse temperatures, run side by side.
        tokens: how many in a system.
        d: dimensions.
        seeds: systems a beta.
        kernel: "sa" (softmax) or "usa" (unnormalised; time in units of exp(-beta)).
        time: how long.
        step: the longest step of time, at most 1.
        seed: of the first start.
        device: where to run.
    """

    betas: tuple[float, ...] | float = (1.0,)
    tokens: int = 32
    d: int = 64
    seeds: int = 3
    kernel: Kernel = "sa"
    time: float = 60.0
    step: float = 0.05
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, least in (("tokens", 2), ("d", 2), ("seeds", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise SettingError(f"{name} is {value}: expected a whole number, at least {least}")
        if self.seed >= SEEDS:
            raise SettingError(f"seed is {self.seed}: expected a whole number below {SEEDS}")
        for name, most in (("time", math.inf), ("step", LONGEST)):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value <= most or value == math.inf:
                ends = "above 0" if most == math.inf else f"above 0, at most {most:g}"
                raise SettingError(f"{name} is {value}: expected a number {ends}")
        betas = self.betas if isinstance(self.betas, tuple) else (self.betas,)
        if not betas or not all(_is_number(b) and 0 < b < math.inf for b in betas):
            raise SettingError(f"betas is {self.betas}: expected numbers above 0")
        self._field(torch.ones(1))  # refuses kernel and norm

    @property
    def inverse_temperatures(self) -> NDArray[np.float64]:
        """[B] the betas."""
        return np.atleast_1d(np.asarray(self.betas, np.float64))

    def _field(self, beta: Tensor) -> Field:
        return Field(beta=beta, kernel=self.kernel)

    def _starts(self) -> Tensor:
        """[B, seeds, n, d]: every beta begins at the same starts."""
        x = scattered(self.seeds, self.tokens, self.d, seed=self.seed)
        return x.expand(len(self.inverse_temperatures), *x.shape)

    def _measured(self, times: NDArray[np.float64], noise: Noise | None = None) -> Simulated:
        device = chosen_device(self.device)
        betas = torch.from_numpy(self.inverse_temperatures)[:, None].to(device)
        field, x = self._field(betas), self._starts().to(device)
        if x.shape[-1] > x.shape[-2] and noise is None:
            x = reduced(field, x).x

        def see(y: Tensor) -> Tensor:
            scaled = energy(y, betas) * 2 * betas
            found = (mean_cosine(y), order_parameter(y), scaled, clusters(y).to(y.dtype))
            return torch.stack(found)

        values = record(
            field, x, times.tolist(), see, longest=self.step, sphere=field.on_sphere, noise=noise
        ).cpu()
        seen = {name: values[:, index].numpy() for index, name in enumerate(SEEN)}
        return Simulated(self, times, self.inverse_temperatures, seen, {})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Run(_Experiment):
    """Mean cosine against time for a few betas, beside the closed form of an equiangular start.

    Attributes:
        betas: inverse temperatures, run side by side.
        tokens: how many in a system.
        d: dimensions.
        seeds: systems a beta, of random starts.
        kernel: "sa" (softmax) or "usa" (unnormalised; time in units of exp(-beta)).
        time: how long.
        step: the longest step of time, at most 1.
        seed: of the starts.
        device: where to run.
        norm: "post" (on the sphere), "pre" or "peri".
        causal: whether a token sees those up to itself alone.
        temperature: of noise on the sphere, in the same units of time; 0 for none.
    """

    betas: tuple[float, ...] | float = (0.5, 2.0, 4.0)
    time: float = 20.0
    norm: Norm = "post"
    causal: bool = False
    temperature: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.causal) is not bool:
            raise SettingError(f"causal is {self.causal}: expected true or false")
        if not _is_number(self.temperature):
            raise SettingError(f"temperature is {self.temperature}: expected a number, 0 or above")

    def _field(self, beta: Tensor) -> Field:
        return Field(beta=beta, kernel=self.kernel, norm=self.norm, causal=self.causal)

    @property
    def has_theory(self) -> bool:
        """Whether the equiangular law is of these dynamics."""
        return self.norm == "post" and not self.causal and not self.temperature

    def __call__(self) -> Simulated:
        """Run."""
        noise = Noise(self.temperature, self.seed) if self.temperature else None
        return self._measured(np.linspace(0, self.time, 101), noise)


@dataclass(frozen=True)
class PhaseDiagram(_Experiment):
    """Mean cosine by temperature 1/beta and depth, with the theory's crossover t*(beta).

    The theory's curve is the time that an equiangular start of cosine 0 takes to a mean cosine of one half,
    which random starts follow as d grows; in few dimensions they are sooner at low temperatures. It is a
    crossover in depth: noise-free attention has no critical temperature.

    Attributes:
        betas: inverse temperatures, run side by side.
        tokens: how many in a system.
        d: dimensions.
        seeds: systems a beta, of random starts.
        kernel: "sa" (softmax) or "usa" (unnormalised; time in units of exp(-beta)).
        time: the deepest depth.
        step: the longest step of time, at most 1.
        seed: of the starts.
        device: where to run.
    """

    betas: tuple[float, ...] | float = tuple(np.geomspace(0.25, 8, 24).round(4).tolist())
    d: int = 512

    def __call__(self) -> Simulated:
        """Run all betas and seeds as one batch."""
        found = self._measured(np.array([0.0, *np.geomspace(self.time / 200, self.time, 160)]))
        starts = found.seen["mean_cosine"][0]
        curves = [
            [
                theory.crossover(beta, self.tokens, start=start, kernel=self.kernel)
                for beta in found.betas
            ]
            for start in (0.0, float(starts.mean()))
        ]
        named = dict(
            zip(("crossover", "crossover_from_start"), map(np.asarray, curves), strict=True)
        )
        return Simulated(self, found.times, found.betas, found.seen, named)


@dataclass(frozen=True)
class Staircase(_Experiment):
    """Dynamic metastability: energy rises in steps, each a meeting of clusters, at log-spaced times.

    Source: Geshkovski, Koubbi, Polyanskiy, Rigollet 2024, arXiv 2410.06833.

    Attributes:
        betas: inverse temperatures, run side by side.
        tokens: how many in a system.
        d: dimensions.
        seeds: systems a beta, of random starts.
        kernel: "sa" (softmax) or "usa" (unnormalised; time in units of exp(-beta)).
        time: the last time; meetings take times of the order of exp(beta).
        step: the longest step of time, at most 1.
        seed: of the starts.
        device: where to run.
    """

    betas: tuple[float, ...] | float = (5.0,)
    d: int = 2
    kernel: Kernel = "usa"
    time: float = 10_000.0
    step: float = 1.0

    def __call__(self) -> Simulated:
        """Run."""
        return self._measured(np.array([0.0, *np.geomspace(0.1, self.time, 120)]))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

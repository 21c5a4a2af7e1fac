"""Three experiments, each a set of settings that is called: a run, a phase diagram, a staircase."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.dynamics import theory
from probes.dynamics.field import Field, Kernel, Norm
from probes.dynamics.flow import Noise, record
from probes.dynamics.observables import clusters, energy, mean_cosine, order_parameter
from probes.dynamics.reduction import reduced
from probes.dynamics.simulated import Simulated
from probes.dynamics.sphere import scattered
from workbench.errors import SettingError
from workbench.instrument import Citation
from workbench.models.pretrained import chosen_device
from workbench.simulation import Pace, Simulation, unpaced

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from workbench.results import Result

__all__ = ["PhaseDiagram", "Run", "Simulated", "Staircase"]

SEEN = ("mean_cosine", "order_parameter", "energy", "clusters")
LONGEST = 1.0  # step: clusters hold together at rate 1; beyond 2 Heun's method throws them apart
SEEDS = 2**32


@dataclass(frozen=True)
class _Experiment(Simulation):
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

    citation: ClassVar[Citation] = Citation(
        "Attention was simulated as moving particles (Geshkovski et al., 2025; {settings})",
        "@article{geshkovski2025mathematical,\n"
        "  title   = {A mathematical perspective on {Transformers}},\n"
        "  author  = {Geshkovski, Borjan and Letrouit, Cyril and Polyanskiy, Yury and Rigollet,\n"
        "             Philippe},\n"
        "  journal = {Bulletin of the American Mathematical Society},\n"
        "  year    = {2025},\n"
        "  note    = {arXiv:2312.10794}\n"
        "}",
    )

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
        if not isinstance(self.device, str):
            raise SettingError(f"device is {self.device}: expected cpu, cuda, cuda:1, ...")
        self._field(torch.ones(1))  # refuses kernel and norm

    @abstractmethod
    def __call__(self, pace: Pace = unpaced) -> Simulated:
        """Run; `pace` is called after each step."""

    def result(self, pace: Pace = unpaced) -> Result:
        """Run, and what was seen in the form that can be stored."""
        from probes.dynamics.stored import stored

        return stored(self(pace))

    @classmethod
    def figure(cls, data: xr.Dataset, *, theme: str = "light", **options: Any) -> go.Figure:
        """The experiment's figure, as `Simulated.plot` draws it."""
        from probes.dynamics.stored import restored

        return restored(data).plot(theme)

    @classmethod
    def rows(cls, data: xr.Dataset) -> list[dict[str, Any]]:
        """Those of `Simulated.rows`."""
        from probes.dynamics.stored import restored

        return restored(data).rows()

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

    def _measured(
        self, times: NDArray[np.float64], pace: Pace, noise: Noise | None = None
    ) -> Simulated:
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
            field,
            x,
            times.tolist(),
            see,
            longest=self.step,
            sphere=field.on_sphere,
            noise=noise,
            pace=pace,
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

    name: ClassVar[str] = "simulated_run"
    title: ClassVar[str] = "Run"

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.causal) is not bool:
            raise SettingError(f"causal is {self.causal}: expected true or false")
        value = self.temperature
        if not _is_number(value) or not 0 <= value < math.inf:
            raise SettingError(f"temperature is {value}: expected a number, 0 or above")

    def _field(self, beta: Tensor) -> Field:
        return Field(beta=beta, kernel=self.kernel, norm=self.norm, causal=self.causal)

    @property
    def has_theory(self) -> bool:
        """Whether the equiangular law is of these dynamics."""
        return self.norm == "post" and not self.causal and not self.temperature

    def __call__(self, pace: Pace = unpaced) -> Simulated:
        """Run; `pace` is called after each step."""
        noise = Noise(self.temperature, self.seed) if self.temperature else None
        return self._measured(np.linspace(0, self.time, 101), pace, noise)


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

    name: ClassVar[str] = "phase_diagram"
    title: ClassVar[str] = "Phase diagram"

    def __call__(self, pace: Pace = unpaced) -> Simulated:
        """Run all betas and seeds as one batch; `pace` is called after each step."""
        found = self._measured(
            np.array([0.0, *np.geomspace(self.time / 200, self.time, 160)]), pace
        )
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

    name: ClassVar[str] = "staircase"
    title: ClassVar[str] = "Staircase"

    def __call__(self, pace: Pace = unpaced) -> Simulated:
        """Run; `pace` is called after each step."""
        return self._measured(np.array([0.0, *np.geomspace(0.1, self.time, 120)]), pace)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

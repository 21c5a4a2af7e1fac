"""What an experiment saw: numbers by time, inverse temperature and seed, their rows and their figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.shown import Shown
from workbench.tidy import plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from probes.dynamics.experiments import PhaseDiagram, Run, Staircase

__all__ = ["Simulated"]

LEVEL = 0.5  # the mean cosine that marks the crossover


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

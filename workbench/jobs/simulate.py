"""A simulation as a job's work: a stored result serves, or it runs and can be stopped between two steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from workbench.errors import Cancelled
from workbench.jobs.execute import Outcome
from workbench.jobs.folder import ResultFolder
from workbench.jobs.keys import simulation_key
from workbench.passes import CancelFlag, Progress
from workbench.simulation import Simulation

__all__ = ["simulate"]

EVERY = 0.1  # seconds between two looks at the table: a step may take less than a look


def simulate(
    simulation: Simulation,
    kept: ResultFolder,
    *,
    progress: Callable[[Progress], None],
    cancel: CancelFlag,
) -> Outcome:
    """Run, and store the result in `kept`.

    Raises:
        Cancelled: `cancel` was set.
        WorkbenchError: the simulation refused.
    """
    key, name = simulation_key(simulation), simulation.name
    if kept.holds(key):
        return Outcome({name: key}, reused=[name])
    kept.save(key, simulation.result(_Pace(progress, cancel)))
    return Outcome({name: key})


@dataclass
class _Pace:
    """Tells now and then how far it is, and stops a run that was cancelled."""

    progress: Callable[[Progress], None]
    cancel: CancelFlag
    began: float = field(default_factory=time.monotonic)
    told: float = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.told < EVERY and done < total:
            return
        if self.cancel.is_set():
            raise Cancelled(f"cancelled after {done} of {total} steps; no result was made")
        self.progress(Progress(done, total, now - self.began))
        self.told = time.monotonic()

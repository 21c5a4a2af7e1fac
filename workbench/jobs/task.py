"""One job in the hands of a worker, from its model to its end in the table."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workbench.errors import Cancelled, ResultError, WorkbenchError
from workbench.jobs.execute import Outcome, execute, one_line, unexpected
from workbench.jobs.folder import ResultFolder
from workbench.jobs.job import Job
from workbench.jobs.plain import instrument_of, simulation_of
from workbench.jobs.shelf import Shelf
from workbench.jobs.simulate import simulate
from workbench.jobs.table import Table
from workbench.jobs.texts import Texts
from workbench.models.engine import Engine
from workbench.passes import Progress
from workbench.prompts import PromptSet

__all__ = ["Task", "Tools"]


@dataclass(frozen=True)
class Tools:
    """What a worker works with."""

    table: Table
    texts: Texts
    kept: ResultFolder
    shelf: Shelf


@dataclass(frozen=True)
class Task:
    """A claimed job. It is the flag, too, that stops its own measurement.

    Attributes:
        tools: the worker's.
        job: as it was claimed.
        gone: set when the desk is gone.
        between: what to do between two batches.
    """

    tools: Tools
    job: Job
    gone: threading.Event
    between: Callable[[], None] | None

    def run(self) -> None:
        """Do the job; whatever happens, the table says how it ended."""
        table, number = self.tools.table, self.job.id
        try:
            outcome = self._outcome()
        except Cancelled:
            if not self.gone.is_set():  # else it is lost, as its desk will say
                table.end(number, "cancelled")
        except WorkbenchError as error:
            table.end(number, "failed", error=one_line(error))
        except Exception as error:
            table.write_log(number, traceback.format_exc())
            table.end(number, "failed", error=unexpected(error))
        else:
            self._end(outcome)

    def is_set(self) -> bool:
        """Whether to stop before the next batch."""
        return self.gone.is_set() or self.tools.table.cancelled(self.job.id)

    def _outcome(self) -> Outcome:
        if self.job.simulates:
            return self._simulated()
        prompts, model = self._prompts(), self._model()
        self.tools.table.set_phase(self.job.id, "measuring")
        return execute(
            model,
            prompts,
            [instrument_of(plain) for plain in self.job.instruments],
            self.tools.kept,
            batch_size=self.job.batch_size,
            progress=self._progress,
            cancel=self,
        )

    def _simulated(self) -> Outcome:
        self.tools.table.set_phase(self.job.id, "simulating")
        (plain,) = self.job.instruments
        return simulate(simulation_of(plain), self.tools.kept, progress=self._progress, cancel=self)

    def _prompts(self) -> PromptSet:
        prompts = self.tools.texts.prompts(self.job.prompts)
        if prompts is None:
            raise ResultError(f"the prompts {self.job.prompts} of this job are no longer kept here")
        return prompts

    def _model(self) -> Engine:
        name, began = self.job.model, time.monotonic()
        if name in self.tools.shelf:
            return self.tools.shelf.model(name)
        self.tools.table.set_phase(self.job.id, f"loading {name}")
        model = self.tools.shelf.model(name)
        self._log(f"loaded {model} in {time.monotonic() - began:.1f} s")
        return model

    def _progress(self, progress: Progress) -> None:
        self.tools.table.set_progress(
            self.job.id, progress.done, progress.total, progress.seconds_left
        )
        if self.between is not None:
            self.between()

    def _end(self, outcome: Outcome) -> None:
        for name in outcome.reused:
            self._log(f"{name}: the stored result serves, nothing was measured")
        for trace in outcome.traces:
            self._log(trace)
        for name, why in outcome.refused.items():
            self._log(f"{name}: refused: {why}")
        self.tools.table.end(
            self.job.id,
            "done" if outcome.results else "failed",
            error=None if outcome.results else _all_refused(outcome.refused),
            results=outcome.results,
            refused=outcome.refused,
        )

    def _log(self, line: str) -> None:
        self.tools.table.write_log(self.job.id, line)


def _all_refused(refused: Mapping[str, str]) -> str:
    if len(refused) == 1:
        return next(iter(refused.values()))
    return "every instrument refused: " + "; ".join(
        f"{name}: {why}" for name, why in refused.items()
    )

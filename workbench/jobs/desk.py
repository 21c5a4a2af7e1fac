"""The desk: where jobs are handed in, watched and collected."""

from __future__ import annotations

import atexit
import re
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from workbench.errors import Cancelled, ModelError, ResultError, SettingError, WorkbenchError
from workbench.jobs.database import Database
from workbench.jobs.folder import ResultFolder
from workbench.jobs.home import Home
from workbench.jobs.job import Job
from workbench.jobs.plain import json_lines, plain_instrument
from workbench.jobs.process import WorkerProcess, WorkerState
from workbench.jobs.request import Request
from workbench.jobs.roster import Roster
from workbench.jobs.spec import ModelSpec
from workbench.jobs.table import Table, Wanted
from workbench.jobs.texts import Texts
from workbench.prompts import PromptSet
from workbench.results import Result
from workbench.simulation import Simulation

__all__ = ["Desk"]

KEPT_BYTES = 4 * 2**30
KEPT_IN_MEMORY = 64  # results
POLL_SECONDS = 0.01
NO_LETTERS = re.compile(r"[^A-Za-z0-9_]+")
LONGEST_NAME = 40


class Desk:
    """Takes jobs for the workers of one process; several desks may share a home folder.

    Args:
        home: the folder of the table, the stored results and the logs; made private.
        models: what can be asked for, by name.
        devices: one worker each; CUDA where present and the CPU otherwise, where None.
        preload: a model to load before the first job asks for it.
        grace: seconds that a cancelled job has to end its batch in before its worker is killed.
        threads: torch's threads in a worker; torch's own choice where None.
        max_bytes: what the stored results may take; the least recently used go, at this moment.

    Raises:
        SettingError: no models, or a device that is named by a model and not here.
        ResultError: the home folder cannot be used.

    >>> with Desk("jobs", {"atlas": ModelSpec("atlas")}) as desk:  # doctest: +SKIP
    ...     desk.wait(desk.submit(Request("atlas", "Rome is in", [LogitLens()])))
    """

    def __init__(
        self,
        home: str | Path,
        models: Mapping[str, ModelSpec],
        *,
        devices: Sequence[str] | None = None,
        preload: str | None = None,
        grace: float = 10.0,
        threads: int | None = None,
        max_bytes: int = KEPT_BYTES,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.home = Home.made(home)
        self.models = _placed(models, devices or (_default_device(),))
        if preload is not None:
            self._device(preload)
        self._state = "new"
        self._grace = grace
        database = Database(self.home.database)
        self._table, self._texts, self._roster = Table(database), Texts(database), Roster(database)
        self._kept = ResultFolder(self.home.results)
        self._results: OrderedDict[str, Result] = OrderedDict()
        self._guard = threading.Lock()  # of _results
        self._roster.sweep()
        self._roster.enlist(self.id)
        self._kept.prune(max_bytes, self._table.oldest_start())
        self._workers = self._employed(preload, threads)

    def __enter__(self) -> Desk:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the workers, once; returns at once."""
        if self._state != "new":
            raise SettingError(f"this desk is {self._state}: open another to start anew")
        self._state = "started"
        for worker in self._workers.values():
            worker.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the workers for good; what is not finished is lost."""
        self._state = "stopped"
        atexit.unregister(self.stop)
        for worker in self._workers.values():
            worker.stop()
        self._roster.dismiss(self.id)

    def workers(self) -> list[WorkerState]:
        """The workers as they are now."""
        return [worker.state() for worker in self._workers.values()]

    # --- jobs ------------------------------------------------------------------------------

    def submit(self, request: Request, *, urgent: bool = False) -> int:
        """Queue a job; returns its number at once.

        Args:
            request: what to measure.
            urgent: do it before others, between two batches of one that runs.

        Raises:
            ModelError: the model is not one of this desk's.
            SettingError, PromptError: what cannot travel to a worker, or the desk is stopped.
        """
        prompts = PromptSet.of(request.prompts)
        return self._queue(
            Wanted(
                title=request.title,
                model=request.model,
                urgent=urgent,
                batch_size=request.batch_size,
                instruments=[plain_instrument(it) for it in request.instruments],
                prompts=self.keep(prompts),
                n_prompts=len(prompts),
                retry_of=None,
                desk=self.id,
                device=self._device(request.model),
            )
        )

    def simulate(self, simulation: Simulation, *, title: str = "") -> int:
        """Queue a simulation, for the first worker; returns its number at once.

        Args:
            simulation: an installed one, with its settings.
            title: as lists of jobs show it; the simulation's own where empty.

        Raises:
            SettingError: settings that cannot travel to a worker, or the desk is stopped.
        """
        return self._queue(
            Wanted(
                title=title or simulation.title,
                model="",
                urgent=False,
                batch_size=None,
                instruments=[plain_instrument(simulation)],
                prompts="",
                n_prompts=0,
                retry_of=None,
                desk=self.id,
                device=self._device(""),
            )
        )

    def retry(self, number: int) -> int:
        """Queue a job anew; returns the new one's number.

        Raises:
            SettingError: there is no such job.
            ModelError: its model is not one of this desk's.
        """
        job = self.job(number)
        return self._queue(
            Wanted(
                title=job.title,
                model=job.model,
                urgent=job.urgent,
                batch_size=job.batch_size,
                instruments=job.instruments,
                prompts=job.prompts,
                n_prompts=job.n_prompts,
                retry_of=number,
                desk=self.id,
                device=self._device(job.model),
            )
        )

    def job(self, number: int) -> Job:
        """A job as it is now.

        Raises:
            SettingError: there is none of this number.
        """
        return self._table.job(number)

    def jobs(self, limit: int = 100) -> list[Job]:
        """The newest jobs of this home, newest first, without their logs."""
        self._roster.sweep()  # another desk may have been killed
        return self._table.latest(limit)

    def wait(self, number: int) -> Job:
        """Wait until a job has ended.

        Raises:
            Cancelled: it was cancelled.
            WorkbenchError: it failed or was lost; the job's own line.
        """
        while not (job := self.job(number)).finished:
            if self._state == "new":
                raise SettingError("this desk is not started: call start(), or use it in `with`")
            time.sleep(POLL_SECONDS)
        if job.state == "cancelled":
            raise Cancelled(f"job {number} was cancelled; no result was made")
        if job.state != "done":
            raise WorkbenchError(job.error)
        return job

    def cancel(self, number: int) -> None:
        """Cancel a job: at once if it waits, before its next batch if it runs.

        Where it does not stop within the time of grace, its worker is killed and another started.
        """
        self._table.cancel(number)
        job = self.job(number)
        if job.state == "running" and job.desk == self.id:
            self._see_to_it(number, self._workers[job.device])

    def clear(self) -> None:
        """Forget every finished job; stored results and prompts stay."""
        self._table.clear()

    # --- prompts and results ---------------------------------------------------------------

    def keep(self, prompts: PromptSet, name: str = "") -> str:
        """Keep prompts of any length; returns the id that a link can name them by.

        Where they are given a name, they are among `named`; a name is that of the latest.
        """
        return self._texts.keep(prompts, name)

    def named(self) -> Mapping[str, str]:
        """The ids of the prompts that were kept under a name, by it; the latest first."""
        return self._texts.named()

    def prompt_file(self, name: str) -> Path:
        """A file of the prompts kept under this name, for settings that name one.

        It lies in a folder called by their id, and is called by the letters of the name that any file
        may have, so that messages with its path can be read.

        Raises:
            ResultError: there are none.
        """
        identifier = self.named().get(name, "")
        prompts = self.prompts(identifier)
        if prompts is None:
            raise ResultError(f"no prompts {name[:40]!r} are kept here: upload them")
        path = self.home.prompts / identifier / f"{_called(name)}.jsonl"
        if not path.is_file():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            new = path.with_suffix(f".{uuid.uuid4().hex}")
            new.write_text(json_lines(prompts), encoding="utf-8")
            new.replace(path)
        return path

    def prompts(self, identifier: str) -> PromptSet | None:
        """The prompts kept under this id; None where there are none."""
        return self._texts.prompts(identifier)

    def result(self, key: str) -> Result:
        """A stored result, as `Job.results` names it.

        Raises:
            ResultError: it is not stored any more, or its file is damaged.
        """
        with self._guard:
            if key not in self._results:
                self._results[key] = self._kept.load(key)
            self._results.move_to_end(key)
            if len(self._results) > KEPT_IN_MEMORY:
                self._results.popitem(last=False)
            return self._results[key]

    # ---------------------------------------------------------------------------------------

    def _device(self, model: str) -> str:
        """The device whose worker has the model, or does simulations, which have none."""
        if not model:
            return next(iter(self._workers))
        if model not in self.models:
            raise ModelError(f"no model {model!r} here: expected one of {', '.join(self.models)}")
        return str(self.models[model].device)

    def _employed(self, preload: str | None, threads: int | None) -> dict[str, WorkerProcess]:
        """A worker for each device that has models."""
        workers = {}
        for device in dict.fromkeys(str(spec.device) for spec in self.models.values()):
            own = {name: s.plain() for name, s in self.models.items() if s.device == device}
            config: dict[str, Any] = {
                "home": str(self.home.root),
                "desk": self.id,
                "device": device,
                "models": own,
                "preload": preload if preload in own else None,
                "threads": threads,
            }
            self.home.trim_log(device)
            workers[device] = WorkerProcess(self.home, self._roster, self._table, config)
        return workers

    def _queue(self, wanted: Wanted) -> int:
        if self._state == "stopped":
            raise SettingError("this desk is stopped: open another")
        number = self._table.add(wanted)
        self._workers[wanted.device].wake()
        return number

    def _see_to_it(self, number: int, worker: WorkerProcess) -> None:
        timer = threading.Timer(self._grace, self._enforce, [number, worker])
        timer.daemon = True
        timer.start()

    def _enforce(self, number: int, worker: WorkerProcess) -> None:
        """Kill the worker of a cancelled job that still runs, unless an urgent one runs inside."""
        running = [job.id for job in self._table.running(self.id, worker.device)]
        if running[-1:] == [number]:
            worker.kill()
        elif number in running:
            self._see_to_it(number, worker)


def _called(name: str) -> str:
    """What a file of prompts of this name is called."""
    plain = NO_LETTERS.sub("-", name.rpartition(".")[0] or name)[:LONGEST_NAME]
    return plain.strip("-") or "prompts"


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _placed(models: Mapping[str, ModelSpec], devices: Sequence[str]) -> dict[str, ModelSpec]:
    """Each model with its device: its own, or the one with the fewest models."""
    if not models:
        raise SettingError("no models: expected at least one name with its ModelSpec")
    load = Counter(dict.fromkeys(devices, 0))
    load.update(spec.device for spec in models.values() if spec.device is not None)
    placed = {}
    for name, spec in models.items():
        if spec.device is not None and spec.device not in devices:
            raise SettingError(
                f"model {name!r} is for {spec.device!r}: expected one of {', '.join(devices)}"
            )
        device = spec.device or min(devices, key=lambda device: load[device])
        load[device] += spec.device is None
        placed[name] = replace(spec, device=device)
    return placed

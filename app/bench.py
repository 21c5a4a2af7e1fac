"""The desk behind the page: what the page asks for becomes jobs, and jobs become runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.instruments import configured, defaults
from app.link import asked_of, query
from app.offered_files import OfferedFiles
from app.offered_prompts import OfferedPrompts
from app.state import Asked, Run, Settings
from workbench import PromptSet, Result, ResultError, SettingError
from workbench.figures import shorten
from workbench.instrument import Instrument
from workbench.jobs import Desk, Job, Request
from workbench.jobs.plain import instrument_of
from workbench.settings import text_of
from workbench.simulation import Simulation

__all__ = ["Bench", "whole"]

SHORT = 8  # digits of the hash of a model's weights
TITLE = 60  # letters of a prompt
PATIENCE = 0.22  # seconds that a page waits before it shows progress; short prompts need less
POLL = 0.01  # seconds
LONGEST_NUMBER = 9


class Bench:
    """Hands the page's measurements to a desk, and finds their results."""

    def __init__(self, desk: Desk, files: OfferedFiles | None = None) -> None:
        """`desk` is started and stopped by whoever made it; `files` are those of its home if None."""
        self.desk = desk
        self.files = files or OfferedFiles(desk.home.lenses)
        self.sets = OfferedPrompts(desk)

    @property
    def names(self) -> list[str]:
        """Names of the models on offer; the first is the page's own."""
        return list(self.desk.models)

    def going(self) -> int:
        """How many jobs wait or run."""
        return sum(not job.finished for job in self.desk.jobs())

    def prompts(self, asked: Asked) -> PromptSet:
        """The set that the prompt belongs to, or the prompt alone.

        Raises:
            PromptError: it is empty.
            ResultError: the set is not kept here.
        """
        if not asked.prompts:
            return PromptSet.of(asked.prompt())
        kept = self.desk.prompts(asked.prompts)
        if kept is None:
            raise ResultError(f"the prompts {asked.prompts} are not on this server: upload them")
        return kept

    def ask(self, asked: Asked, instruments: Sequence[str], settings: Settings) -> Job:
        """Queue a measurement that the page waits for, and give it a moment.

        Raises:
            WorkbenchError: the model, the prompt or a setting cannot be used.
        """
        prompts = self.prompts(asked)
        chosen = [self._configured(name, settings) for name in instruments]
        title = shorten(" ".join(asked.text.split()), TITLE) if len(prompts) == 1 else ""
        request = Request(asked.model, prompts, chosen, title=title)
        return self._soon(self.desk.submit(request, urgent=len(prompts) == 1))

    def queue(
        self, model: str, kept: str, title: str, instruments: Sequence[str], settings: Settings
    ) -> int:
        """Queue a kept prompt set that nobody waits for; the job's number. Errors as `ask`."""
        prompts = self.prompts(Asked(model, "", prompts=kept))
        chosen = [self._configured(name, settings) for name in instruments]
        return self.desk.submit(Request(model, prompts, chosen, title=title))

    def simulate(self, simulation: Simulation) -> Job:
        """Queue a simulation, and give it a moment; one that is stored is found in it.

        Raises:
            SettingError: the desk is stopped.
        """
        return self._soon(self.desk.simulate(simulation))

    def measurement(self, number: str) -> Job:
        """The job of this number, which has measured a model.

        Raises:
            SettingError: there is none, or it is a simulation.
        """
        job = self.desk.job(whole(number))
        if job.simulates:
            raise SettingError(f"job {job.id} is a simulation: open /simulate/?job={job.id}")
        return job

    def simulation(self, number: str) -> Job:
        """The job of this number, which has run a simulation.

        Raises:
            SettingError: there is none, or it has measured a model.
        """
        job = self.desk.job(whole(number))
        if not job.simulates:
            raise SettingError(f"job {job.id} is no simulation: open it from the Jobs page")
        return job

    def retry(self, number: int) -> Job:
        """Queue a job anew. Errors are those of `Desk.retry`."""
        return self._soon(self.desk.retry(number))

    def asked(self, job: Job, at: str | None = None) -> tuple[Asked, int | str]:
        """What a job measures: its prompt called `at`, or the first; and that prompt's name."""
        prompts = self.desk.prompts(job.prompts)
        assert prompts is not None  # they are kept for longer than the job is
        return asked_of(job.model, job.prompts, prompts, at)

    def run(self, job: Job, settings: Settings, at: str | None = None) -> tuple[Run, int | str]:
        """What a job has measured of the prompt called `at`, or of the first; and that name.

        Raises:
            ResultError: nothing of it is stored.
        """
        if not job.results:
            raise ResultError(f"job {job.id} ({job.title}) has no results: retry it")
        asked, name = self.asked(job, at)
        results, refused = dict(job.results), dict(job.refused)
        return self._at(Run(asked, 0, 0, "", job.prompts, results, refused, settings), name), name

    def moved(self, run: Run, at: str) -> tuple[Run, int | str]:
        """The run at another prompt of its set, and that prompt's name. Errors are those of `run`."""
        prompts = self.prompts(run.asked)
        asked, name = asked_of(run.asked.model, run.kept, prompts, at)
        return self._at(replace(run, asked=asked), name), name

    def settings(self, job: Job) -> Settings:
        """The settings of a job's instruments, where they are not the page's own."""
        found = {}
        for plain in job.instruments:
            name = plain["name"]
            usual, named = defaults(name), self.named(name, instrument_of(plain).settings())
            found[name] = {k: text for k, text in named.items() if text != usual[k]}
        return {name: own for name, own in found.items() if own}

    def named(self, instrument: str, settings: Mapping[str, Any]) -> dict[str, str]:
        """An instrument's settings as texts; files and prompt sets by the names that pages give them."""
        texts = {name: text_of(value) for name, value in settings.items()}
        return self.sets.closed(instrument, self.files.closed(instrument, texts))

    def joined(self, before: Run, job: Job, settings: Settings) -> Run:
        """The run with what another job has measured of the same prompt."""
        own = {name: settings[name] for name in job.results if name in settings}
        others = {k: v for k, v in before.settings.items() if k not in job.results}
        run = replace(
            before,
            settings=others | own,
            results={**before.results, **job.results},
            refused={k: v for k, v in before.refused.items() if k not in job.results}
            | dict(job.refused),
        )
        return replace(run, link=query(run))

    def result(self, run: Run, instrument: str) -> Result | None:
        """What an instrument has measured in this run; None where it has not.

        Raises:
            ResultError: it is not stored any more.
        """
        key = run.results.get(instrument)
        return None if key is None else self.desk.result(key)

    def results(self, run: Run) -> dict[str, Result]:
        """All results of a run, by instrument. Errors are those of `result`."""
        return {name: self.desk.result(key) for name, key in run.results.items()}

    def sites(self, run: Run) -> set[str]:
        """The components that any result of a run speaks of. Errors are those of `result`."""
        data = [result.data for result in self.results(run).values()]
        return {str(site) for one in data if "site" in one.dims for site in one["site"].values}

    def _configured(self, name: str, settings: Settings) -> Instrument:
        opened = self.files.opened(name, settings.get(name, {}))
        return configured(name, self.sets.opened(name, opened))

    def _at(self, run: Run, name: int | str) -> Run:
        """The run with what its results say of the model and of the prompt called `name`."""
        made_of = self.desk.result(next(iter(run.results.values()))).provenance
        model = made_of["model"]
        run = replace(
            run,
            layers=model["n_layers"],
            positions=_length(made_of, name),
            weights=model["weights"][:SHORT],
        )
        return replace(run, link=query(run))

    def _soon(self, number: int) -> Job:
        """The job, after a moment in which what is stored already would be found."""
        until = time.monotonic() + PATIENCE
        while not (job := self.desk.job(number)).finished and time.monotonic() < until:
            time.sleep(POLL)
        return job


def whole(text: str) -> int:
    """A job's number; none that there could be where it is no number."""
    return int(text) if text.isdecimal() and len(text) <= LONGEST_NUMBER else 0


def _length(made_of: dict[str, Any], name: int | str) -> int:
    """How many tokens the prompt has."""
    return next(len(prompt["ids"]) for prompt in made_of["prompts"] if prompt["name"] == name)

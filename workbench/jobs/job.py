"""A job as the table knows it at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["FINISHED", "Job", "LogLine"]

FINISHED = ("done", "failed", "cancelled", "lost")


class LogLine(NamedTuple):
    """One line of a job's log; `time` in seconds since the epoch."""

    time: float
    line: str


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        id: its number.
        title, model, urgent, batch_size: as asked for; a simulation has no model: "".
        instruments: {"name": ..., "settings": {...}} each, or that of the one simulation.
        prompts: the id under which the desk keeps its prompts.
        n_prompts: how many they are.
        retry_of: the job that it repeats.
        desk: the id of the desk that queued it.
        device: whose worker does it.
        state: queued, running, done, failed, cancelled or lost.
        phase: what a running job is at, such as "loading atlas" or "measuring".
        created, started, ended: seconds since the epoch.
        done, total: tokens; of a simulation, steps.
        seconds_left: at the pace so far; None before the first batch is done.
        error: one line, where it failed or was lost.
        results: the key of each instrument's stored result.
        refused: one line for each instrument that would not measure this.
        log: what happened, oldest first.
    """

    id: int
    title: str
    model: str
    urgent: bool
    batch_size: int | None
    instruments: tuple[Mapping[str, Any], ...]
    prompts: str
    n_prompts: int
    retry_of: int | None
    desk: str
    device: str
    state: str
    phase: str
    created: float
    started: float | None
    ended: float | None
    done: int
    total: int
    seconds_left: float | None
    error: str | None
    results: Mapping[str, str]
    refused: Mapping[str, str]
    log: tuple[LogLine, ...] = ()

    @property
    def simulates(self) -> bool:
        """Whether it runs a simulation, without a model and prompts."""
        return not self.model

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in FINISHED

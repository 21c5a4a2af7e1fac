"""The table of jobs, newest first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import dash_mantine_components as dmc
from dash import html

from app.instruments import kinds
from workbench.figures import shorten
from workbench.jobs import Job

__all__ = ["CANCEL", "CHOOSE", "PROGRESS", "RETRY", "TOOK", "progress", "table", "took"]

CANCEL, CHOOSE, RETRY = "job-cancel", "job-choose", "job-retry"
PROGRESS, TOOK = "job-progress", "job-took"
COLUMNS = (
    "Job",
    "State",
    "Title",
    "Model",
    "Instruments",
    "Prompts",
    "Progress",
    "Started",
    "Took",
    "",
)
NONE = "No jobs yet. Press Run on the Inspector, or run a prompt set as a job."
DAY = 24 * 3600.0
REASON = 120  # letters of a failed job's reason


def table(jobs: Sequence[Job], chosen: int | None) -> Any:
    """The table, or what stands in its place while there are no jobs."""
    if not jobs:
        return html.Div(NONE, className="empty")
    head = html.Thead(html.Tr([html.Th(name) for name in COLUMNS[:-1]] + [html.Td()]))
    return html.Table([head, html.Tbody([_row(job, job.id == chosen) for job in jobs])])


def _words(seconds: float) -> str:
    """A time in words."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _row(job: Job, chosen: bool) -> html.Tr:
    pressed: dict[str, Any] = {"aria-pressed": "true" if chosen else "false"}
    title = html.Button(
        job.title, id={"type": CHOOSE, "job": job.id}, className="as-link", **pressed
    )
    cells = [
        f"{job.id}",
        html.Span(job.state, className=f"state {job.state}"),
        [title, *_reason(job)],
        job.model,
        ", ".join(instrument["name"] for instrument in job.instruments),
        "" if job.simulates else f"{job.n_prompts:,}",
        html.Span(progress(job), id={"type": PROGRESS, "job": job.id}),
        "" if job.started is None else _clock(job.started),
        html.Span(took(job), id={"type": TOOK, "job": job.id}),
        _action(job),
    ]
    return html.Tr([html.Td(cell) for cell in cells])


def _reason(job: Job) -> list[html.Div]:
    """Why a job came to nothing."""
    text = shorten(" ".join(str(job.error or "").split()), REASON)
    return [html.Div(text, className="reason")] if text else []


def progress(job: Job) -> str:
    """What a job is at, or whether it repeats another."""
    if job.state != "running":
        return "" if job.retry_of is None else f"retry of {job.retry_of}"
    unit = "steps" if job.simulates else "tokens"
    tokens = f"{job.done:,} of {job.total:,} {unit}" if job.total else ""
    rest = "" if job.seconds_left is None else f"{_words(job.seconds_left)} left"
    return ", ".join(filter(None, (job.phase, tokens, rest)))


def _clock(moment: float) -> str:
    recent = time.time() - moment < DAY
    return datetime.fromtimestamp(moment).strftime("%H:%M:%S" if recent else "%Y-%m-%d %H:%M")


def took(job: Job) -> str:
    """How long a job has run."""
    if job.started is None:
        return ""
    return _words((job.ended or time.time()) - job.started)


def _where(job: Job) -> str:
    """The Inspector, unless all that was measured is of the set as a whole, or nothing was."""
    if job.simulates:
        return "/simulate/"
    return "/sets/" if all(kinds()[name].needs_set for name in job.results) else "/"


def _action(job: Job) -> Any:
    """What can be done with a job in its state."""
    if job.state == "done":
        name: dict[str, Any] = {"aria-label": f"Open the result of job {job.id}"}
        return html.A("Open", href=f"{_where(job)}?job={job.id}", **name)
    kind, text = (RETRY, "Retry") if job.finished else (CANCEL, "Cancel")
    label: dict[str, Any] = {"aria-label": f"{text} job {job.id}"}
    return dmc.Button(
        text, id={"type": kind, "job": job.id}, size="compact-xs", variant="default", **label
    )

"""Simulations as jobs: results as when called directly, progress, cancelling between steps, refusals."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import workbench as wb
from lenses import LogitLens
from probes.dynamics.experiments import PhaseDiagram, Run, Staircase
from workbench.errors import Cancelled
from workbench.jobs import Desk, Job, Request
from workbench.jobs.folder import ResultFolder
from workbench.jobs.keys import simulation_key
from workbench.jobs.plain import plain_instrument, simulation_of
from workbench.jobs.simulate import simulate
from workbench.passes import Progress

SMALL = PhaseDiagram(betas=(0.5, 2.0), tokens=4, d=6, seeds=2, time=1.0, step=0.1)
ENDLESS = Run(betas=(1.0,), tokens=4, d=4, seeds=1, time=1e7)


@dataclass
class Stop:
    """A flag that is set after so many looks at it."""

    looks: int

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def begun(desk: Desk, number: int) -> Job:
    """The job, once a step of it is done."""
    until = time.monotonic() + 60
    while not (job := desk.job(number)).done:
        assert time.monotonic() < until, "no step is done"
        time.sleep(0.02)
    return job


def test_a_jobs_result_is_that_of_the_simulation(desk: Desk) -> None:
    job = desk.wait(desk.simulate(SMALL))
    assert (job.simulates, job.model, job.prompts, job.n_prompts) == (True, "", "", 0)
    assert (job.state, job.title, job.done) == ("done", "Phase diagram", job.total)
    found, direct = desk.result(job.results["phase_diagram"]), SMALL()
    assert found.rows() == direct.rows()
    assert found.plot("dark").to_json() == direct.plot("dark").to_json()
    assert found.provenance["settings"]["betas"] == [0.5, 2.0]
    assert found.cite().startswith("Attention was simulated as moving particles")
    assert repr(found) == "<phase_diagram: time 161, beta 2, seed 2>"
    again = desk.wait(desk.retry(job.id))
    assert again.results == job.results
    assert [line.line for line in again.log] == [
        "phase_diagram: the stored result serves, nothing was measured"
    ]


def test_a_run_says_how_far_it_is_and_stops_between_steps(desk: Desk) -> None:
    (before,) = desk.workers()
    number = desk.simulate(ENDLESS, title="for ever")
    job = begun(desk, number)
    assert (job.phase, job.total) == ("simulating", 2 * 10**8)
    # a prompt on a page does not wait for it
    lens = desk.wait(desk.submit(Request("tiny", "Rome", [LogitLens()]), urgent=True))
    assert lens.state == "done"
    assert desk.job(number).state == "running"
    desk.cancel(number)
    with pytest.raises(Cancelled):
        desk.wait(number)
    (after,) = desk.workers()
    assert after.pid == before.pid  # it was not killed


def test_what_a_run_refuses_is_the_jobs_line(desk: Desk) -> None:
    number = desk.simulate(Run(device="nowhere", time=1.0))
    with pytest.raises(wb.WorkbenchError, match="nowhere"):
        desk.wait(number)
    assert desk.job(number).state == "failed"


def test_nothing_is_stored_of_a_cancelled_run(tmp_path: Path) -> None:
    kept, seen = ResultFolder(tmp_path), list[Progress]()
    with pytest.raises(Cancelled, match=r"cancelled after \d+ of 200000000 steps"):
        simulate(ENDLESS, kept, progress=seen.append, cancel=Stop(2))
    assert list(tmp_path.iterdir()) == []
    assert [one.total for one in seen] == [2 * 10**8] * 2
    outcome = simulate(SMALL, kept, progress=seen.append, cancel=Stop(10**6))
    assert kept.holds(outcome.results["phase_diagram"])
    assert seen[-1].done == seen[-1].total


@pytest.mark.parametrize("one", [SMALL, Run(causal=True, temperature=0.1), Staircase()])
def test_a_simulation_travels_as_plain_data(one: PhaseDiagram | Run | Staircase) -> None:
    assert simulation_of(plain_instrument(one)) == one
    other = type(one)(**{**one.settings(), "seed": 7})
    assert len({simulation_key(one), simulation_key(other)}) == 2
    assert simulation_key(simulation_of(plain_instrument(one))) == simulation_key(one)


def test_noise_and_metastability_survive_storing(tmp_path: Path) -> None:
    for one in (
        Run(tokens=4, d=3, seeds=1, time=0.5, norm="pre"),
        Run(tokens=4, d=3, seeds=2, time=0.5, temperature=0.2),
        Staircase(tokens=5, seeds=1, time=3.0),
    ):
        path = one.result().save(tmp_path / "one.nc")
        found, direct = wb.Result.load(path), one()
        assert found.rows() == direct.rows()
        assert found.plot().to_json() == direct.plot().to_json()
        np.testing.assert_array_equal(found.data["mean_cosine"], direct.seen["mean_cosine"])

"""A desk and its worker: results, urgent jobs, cancelling, and lines for what goes wrong."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
import xarray as xr

import workbench as wb
from lenses import LogitLens
from tests.jobs.gates import Gates
from workbench.jobs import Desk, Request

PROMPTS = wb.PromptSet.of([wb.Prompt("The capital of France is", target=" Paris"), "Rome is in"])


def gated(gates: Gates, batches: int) -> Request:
    """A job whose every batch waits at the gates."""
    from workbench_toys import Gate

    texts = ["x" * (number + 1) for number in range(batches)]
    return Request("tiny", texts, [Gate(gates.folder)], batch_size=1)


def worker_pid(desk: Desk) -> int:
    (worker,) = desk.workers()
    assert worker.pid is not None
    return worker.pid


def test_a_jobs_result_is_that_of_measure(desk: Desk) -> None:
    number = desk.submit(Request("atlas", PROMPTS, [LogitLens(top_k=3)], title="capitals"))
    job = desk.wait(number)
    expected = LogitLens(top_k=3)(wb.load("atlas"), PROMPTS)
    stored = desk.result(job.results["logit_lens"])
    xr.testing.assert_allclose(stored.data, expected.data, rtol=1e-5, atol=1e-5)
    tokens = sum(len(prompt["ids"]) for prompt in expected.provenance["prompts"])
    assert (job.state, job.title, job.error) == ("done", "capitals", None)
    assert (job.done, job.total, job.n_prompts) == (tokens, tokens, 2)
    assert job.started is not None
    assert job.ended is not None
    assert job.created <= job.started <= job.ended
    assert desk.prompts(job.prompts) == PROMPTS
    assert desk.jobs(limit=1)[0].id == number
    assert desk.result(job.results["logit_lens"]) is stored


def test_a_second_job_is_served_from_what_is_stored(desk: Desk, gates: Gates) -> None:
    gates.open(2)
    first = desk.wait(desk.submit(gated(gates, 2)))
    assert gates.batches_begun() == 2
    second = desk.wait(desk.submit(gated(gates, 2)))
    assert second.results == first.results
    assert gates.batches_begun() == 0
    assert [entry.line for entry in second.log] == [
        "toy_gate: the stored result serves, nothing was measured"
    ]


def test_a_running_job_says_how_far_it_is(desk: Desk, gates: Gates) -> None:
    number = desk.submit(gated(gates, 2))
    gates.wait_for_batch()
    job = desk.job(number)
    assert (job.state, job.phase, job.done, job.total) == ("running", "measuring", 0, 1 + 2)
    assert job.seconds_left is None
    gates.open(1)
    gates.wait_for_batch()
    job = desk.job(number)
    assert 0 < job.done < job.total
    assert job.seconds_left is not None
    assert [worker.state for worker in desk.workers()] == ["busy"]
    gates.open(1)
    desk.wait(number)


def test_an_urgent_job_runs_between_two_batches(desk: Desk, gates: Gates) -> None:
    long = desk.submit(gated(gates, 3))
    gates.wait_for_batch()
    waiting = desk.submit(Request("tiny", "Rome", [LogitLens(top_k=2)]))
    urgent = desk.submit(Request("tiny", "Paris", [LogitLens(top_k=2)]), urgent=True)
    gates.open(1)
    desk.wait(urgent)
    assert [desk.job(number).state for number in (long, waiting)] == ["running", "queued"]
    gates.open(2)
    assert desk.wait(long).results
    assert desk.wait(waiting).results


def test_cancel_stops_before_the_next_batch(desk: Desk, gates: Gates) -> None:
    running, queued = desk.submit(gated(gates, 3)), desk.submit(gated(gates, 2))
    gates.wait_for_batch()
    desk.cancel(queued)
    assert desk.job(queued).state == "cancelled"
    desk.cancel(running)
    gates.open(1)
    with pytest.raises(wb.Cancelled, match=f"job {running} was cancelled; no result was made"):
        desk.wait(running)
    assert gates.batches_begun() == 0
    assert desk.job(running).results == {}


def test_a_worker_killed_in_mid_job_is_replaced(desk: Desk, gates: Gates) -> None:
    number = desk.submit(gated(gates, 2))
    gates.wait_for_batch()
    killed = worker_pid(desk)
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(wb.WorkbenchError, match=r"killed \(SIGKILL, signal 9\) in mid-job"):
        desk.wait(number)
    assert desk.job(number).state == "lost"
    gates.open(2)
    again = desk.wait(desk.retry(number))
    assert (again.state, again.retry_of) == ("done", number)
    assert worker_pid(desk) != killed


def test_a_worker_that_hangs_after_cancel_is_killed(desk: Desk, gates: Gates) -> None:
    number = desk.submit(gated(gates, 2))
    gates.wait_for_batch()
    hanging = worker_pid(desk)
    desk.cancel(number)
    with pytest.raises(wb.Cancelled):
        desk.wait(number)
    assert not psutil.pid_exists(hanging)
    assert desk.wait(desk.submit(Request("tiny", "next", [LogitLens()]))).results


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (Request("absent", "x", [LogitLens()]), "no folder /no/such/folder: expected one"),
        (Request("tiny", "x" * 65, [LogitLens()]), "the model's context is 64"),
        (Request("tiny", wb.Prompt("x", target="ab"), [LogitLens()]), "2 tokens"),
        (Request("tiny", "x", [LogitLens(top_k=258)]), "the vocabulary has 257"),
        (Request("tiny", "x", [LogitLens(positions=3)]), "position 3 is outside prompt 'x'"),
    ],
)
def test_errors_come_back_as_one_line(asked: Request, line: str, desk: Desk) -> None:
    with pytest.raises(wb.WorkbenchError, match=line) as caught:
        desk.wait(desk.submit(asked))
    assert "\n" not in str(caught.value)


def test_an_unexpected_error_leaves_its_trace_in_the_log(desk: Desk) -> None:
    from workbench_toys import Broken

    number = desk.submit(Request("tiny", "x", [Broken()]))
    with pytest.raises(wb.WorkbenchError, match="Unexpected TypeError in drive") as caught:
        desk.wait(number)
    assert str(caught.value).endswith("; the log has the details")
    (entry,) = desk.job(number).log
    assert entry.line.startswith("Traceback")
    assert "one\ntoo many" in entry.line


def test_a_refused_instrument_does_not_stop_the_others(desk: Desk) -> None:
    from workbench_toys import Picky

    job = desk.wait(desk.submit(Request("tiny", "x", [Picky(), LogitLens(top_k=4)])))
    assert (job.state, list(job.results)) == ("done", ["logit_lens"])
    assert job.refused == {"toy_picky": "toy_picky: 3 layers are not to its liking"}


def test_a_damaged_result_is_not_served(desk: Desk) -> None:
    request = Request("tiny", "damaged", [LogitLens()])
    number = desk.submit(request)
    key = desk.wait(number).results["logit_lens"]
    path = desk.home.results / f"{key}.nc"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(wb.ResultError, match="is damaged: retry its job"):
        desk.result(key)
    assert desk.wait(desk.retry(number)).log == ()
    assert desk.result(key).data.sizes["place"] == len("damaged")


def test_what_cannot_be_asked_for_is_refused_at_once(desk: Desk) -> None:
    before = [job.id for job in desk.jobs()]
    with pytest.raises(wb.ModelError, match="no model 'gpt5' here: expected one of tiny, atlas"):
        desk.submit(Request("gpt5", "x", [LogitLens()]))
    with pytest.raises(wb.SettingError, match="no job 999999 here"):
        desk.retry(999_999)
    assert [job.id for job in desk.jobs()] == before

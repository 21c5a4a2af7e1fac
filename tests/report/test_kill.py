"""SIGKILL at any moment, with two writers at once: the next run completes, every row there once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

import workbench as wb
from lenses import LogitLens
from tests.report.toys import MeanState
from tests.tiny import model
from workbench.report import report

ROOT = Path(__file__).parents[2]
TEXTS = [f"prompt {n} " + "x" * (n % 5) for n in range(60)]
SHARD = 4

# Starting torch takes seconds, so one process starts and forks a writer for every line it reads. A
# writer goes on from a line that it says when it is given a byte: on a busy machine it would otherwise
# be done, and say no more, before the reader has counted its lines.
NURSERY = f"""
import os, signal, sys
import torch
from lenses import LogitLens
from tests.report.toys import MeanState
from tests.tiny import model
from workbench.report import report

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
gpt2 = model("gpt2", torch.float32)
for _ in sys.stdin:
    if os.fork() == 0:
        def say(text):
            os.write(1, f"{{os.getpid()}} {{text}}\\n".encode())
            os.read(int(sys.argv[2]), 1)
        say("begins")
        report(gpt2, {TEXTS!r}, [LogitLens(top_k=1), MeanState()], sys.argv[1],
               shard_size={SHARD}, batch_size=1, progress=lambda headway: say(headway.done))
        say("ends")
        os._exit(0)
"""


@contextmanager
def nursery(out: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    gate, go_on = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(out), str(gate)],
        pass_fds=[gate],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    os.close(gate)
    try:
        yield process, go_on
    finally:
        os.close(go_on)
        process.communicate()


def kill_two(process: subprocess.Popen[str], go_on: int, lines: int, dead: set[int]) -> None:
    """Two writers begin; after so many lines of progress both go on, and are killed.

    What the dead have said last is read among what these say.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\ngo\n")
    process.stdin.flush()
    pids: set[int] = set()
    for line in process.stdout:
        if (pid := int(line.split()[0])) in dead:
            continue
        pids.add(pid)
        lines -= 1
        if len(pids) == 2 and lines <= 0:
            break
        os.write(go_on, b".")
    os.write(go_on, b"..")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    dead |= pids


def test_killed_at_random_moments(tmp_path: Path) -> None:
    out, chance = tmp_path / "out", random.Random(0)
    dead: set[int] = set()
    with nursery(out) as (process, go_on):
        for _ in range(6):
            kill_two(process, go_on, chance.randint(2, 14), dead)
    finished = list(out.glob("shards/0*"))
    assert 0 < len(finished) < len(TEXTS) / SHARD
    assert list(out.glob("shards/.unfinished*"))

    gpt2 = model("gpt2", torch.float32)
    instruments = [LogitLens(top_k=1), MeanState()]
    summary = report(gpt2, TEXTS, instruments, out, shard_size=SHARD, batch_size=1)
    assert (summary.left, summary.failed) == (0, 0)
    rows = pd.read_parquet(sorted(out.glob("shards/*/logit_lens.parquet")))
    lens, mean = wb.measure(gpt2, TEXTS, instruments, batch_size=1)
    assert len(rows) == 4 * sum(map(len, TEXTS))
    assert len(rows.drop_duplicates(["prompt", "layer", "position"])) == len(rows)
    assert rows.entropy.tolist() == [row["entropy"] for row in lens.rows()]
    merged = wb.Result.load(out / "mean_state.nc").data["mean"].values
    torch.testing.assert_close(merged, mean.data["mean"].values, rtol=1e-12, atol=0)
    assert not list(out.glob("shards/.*"))
    assert (out / "report.html").is_file()

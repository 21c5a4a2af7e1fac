"""What an import costs: each in a fresh interpreter, the sides interleaved."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.clock import interleave
from benchmarks.line import Line

__all__ = ["run"]

FLOOR = "import torch, transformers"
SIDES = {
    "import workbench": "import workbench",
    "workbench --help": "from app.cli import cli; cli(['--help'], standalone_mode=False)",
    "the app's page": "import app.server",
}
GOALS = {"import workbench": 1.1}


def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """Each of ours over torch and transformers' lazy import, which any tool of the kind has.

    Args:
        device: not used: importing touches none.
        rounds: of every side; one more warms the file cache up.
    """
    sides = {name: partial(_started, code) for name, code in (SIDES | {"floor": FLOOR}).items()}
    times = interleave(sides, rounds)
    for name in SIDES:
        seconds = f"{times.median(name):.2f} s against {times.median('floor'):.2f} s"
        ratio = times.ratio(name, "floor")
        yield Line(f"{name} / import of torch and transformers", ratio, GOALS.get(name), seconds)


def _started(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

"""Interleaved timing and peak memory: ratios that a busy machine cannot tilt to one side."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Times", "interleave", "peak_mib"]

Side = Callable[[], object]
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Times:
    """Seconds of each side, round by round."""

    rounds: Mapping[str, list[float]]

    def median(self, side: str) -> float:
        """Median seconds of one side."""
        return statistics.median(self.rounds[side])

    def ratio(self, side: str, to: str) -> float:
        """Median over the rounds of side / to, both from the same round."""
        pairs = zip(self.rounds[side], self.rounds[to], strict=True)
        return statistics.median(a / b for a, b in pairs)


def interleave(sides: Mapping[str, Side], rounds: int) -> Times:
    """Run every side once a round, the order turned by one each round; one round warms up."""
    names = list(sides)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds = _timed(sides[name])
            if number:
                times[name].append(seconds)
    return Times(times)


def _timed(side: Side) -> float:
    _wait()
    begin = time.perf_counter()
    side()
    _wait()
    return time.perf_counter() - begin


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_mib(side: Side, device: torch.device) -> float:
    """Peak memory of one call above what was held before, MiB (resident set, or CUDA's)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        side()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what others have freed is not held any more
    RESET.write_text("5")  # Linux: start the peak again from here
    before = _status_kib("VmRSS")
    side()
    return (_status_kib("VmHWM") - before) / 2**10


def _status_kib(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])

"""The simulator: one velocity field against the dense form, and a phase diagram of 72 systems."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.clock import interleave
from benchmarks.line import Line
from probes.dynamics.experiments import PhaseDiagram
from probes.dynamics.field import Field
from probes.dynamics.flow import advance
from probes.dynamics.sphere import project, scattered

__all__ = ["run"]

TOKENS, MANY, WIDTH, BETA = 4096, 65_536, 64, 4.0
STEPS = 1200


def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """Measure and compare; velocities are checked to agree first."""
    yield from velocities(device, rounds)
    yield from phase(device, rounds)
    if device.type == "cuda":
        yield many(device, rounds)


def dense(x: Tensor) -> Tensor:
    """The definition, the whole matrix of weights held."""
    return project(x, torch.softmax(BETA * (x @ x.mT), -1) @ x)


def velocities(device: torch.device, rounds: int) -> Iterator[Line]:
    """One right-hand side of many tokens, on the sphere already."""
    for width in (3, WIDTH):
        yield right_hand_side(scattered(TOKENS, width, dtype=torch.float32).to(device), rounds)


def right_hand_side(x: Tensor, rounds: int) -> Line:
    """Our field, which normalises the tokens too, over the dense one."""
    field = Field(beta=BETA)
    error = float((field(0, x) - dense(x)).abs().max())
    # Sums of 4096 float32 terms in two orders.
    if error > 1e-5:
        raise RuntimeError(f"velocities differ by {error:.1e}: expected 1e-5")
    times = interleave({"ours": lambda: field(0, x), "dense": lambda: dense(x)}, rounds)
    return Line(
        f"velocities of {TOKENS} tokens, d = {x.shape[-1]}, over the dense form",
        times.ratio("ours", "dense"),
        1 / 2,
        f"{times.median('ours') * 1e3:.0f} ms, velocities within {error:.0e}",
    )


def phase(device: torch.device, rounds: int) -> Iterator[Line]:
    """24 betas x 3 seeds as one batch; and over the same systems one after another, of which 3 are run."""
    betas = torch.tensor(PhaseDiagram().inverse_temperatures, dtype=torch.float32, device=device)
    starts = scattered(3, 32, 64, dtype=torch.float32).to(device)
    batch = starts.expand(len(betas), 3, 32, 64)

    def ours() -> Tensor:
        return advance(Field(beta=betas[:, None]), batch, 60.0, STEPS)

    def one_by_one() -> list[Tensor]:
        return [advance(Field(beta=float(betas[0])), x, 60.0, STEPS) for x in starts]

    times = interleave({"ours": ours, "one": one_by_one}, rounds)
    yield Line(
        f"72 systems of 32 tokens, d = 64, {STEPS} Heun steps", times.median("ours"), 10.0, "", "s"
    )
    yield Line(
        "the same over one system after another",
        times.ratio("ours", "one") / len(betas),
        1.0,
        "of which 3 are run, since all cost the same",
    )


def many(device: torch.device, rounds: int) -> Line:
    """So many tokens that the matrix of their weights would take 16 GiB."""
    x = scattered(MANY, WIDTH, dtype=torch.float32).to(device)
    times = interleave({"ours": lambda: Field(beta=BETA)(0, x)}, rounds)
    return Line(
        f"velocities of {MANY} tokens, d = {WIDTH}", times.median("ours"), 1.0, "float32", "s"
    )

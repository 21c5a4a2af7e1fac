"""Probes of many neurons against scikit-learn's loops, and what significance and moments cost.

Synthetic activations: 7000 examples, 3072 neurons of one layer, 16 of them more or less about the
label. scikit-learn's sides fit `SOME` of the columns, which all cost the same there, and their time is
taken for all of them. They get standardised float64 columns, as the batched side does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from benchmarks.clock import interleave, peak_mib
from benchmarks.line import Line
from probes.sparse.moments import Moments
from probes.sparse.rankers import rank, top
from probes.sparse.significance import max_t
from probes.sparse.solvers import Scale, fit_each
from probes.sparse.supports import SERIES, supports

__all__ = ["run"]

EXAMPLES, NEURONS, CARRIERS, SOME = 7000, 3072, 16, 12
LAYERS, FEATURES, BATCH = 12, 8, 256
DOCUMENTS, TOKENS = 40, 50


def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """Measure and compare; coefficients and supports are checked to agree first."""
    yield from singles(device, rounds)
    yield from telescope(device, rounds)
    yield from significance(device, rounds)
    yield moments(device)


@dataclass(frozen=True)
class Task:
    """Standardised activations and their labels."""

    scaled: Tensor
    labels: Tensor

    @classmethod
    def of(cls, examples: int, device: torch.device) -> Task:
        random = torch.Generator().manual_seed(0)
        acts = torch.randn(examples, NEURONS, generator=random).relu()
        labels = (torch.rand(examples, generator=random) < 0.2).long()
        acts[:, :CARRIERS] += torch.linspace(1.5, 0.3, CARRIERS) * labels[:, None]
        return cls(Scale.of(acts)(acts).to(device), labels.to(device))


def singles(device: torch.device, rounds: int) -> Iterator[Line]:
    """Every neuron by itself."""
    task = Task.of(EXAMPLES, device)
    step = NEURONS // SOME
    x, y = task.scaled[:, ::step].cpu().numpy(), task.labels.cpu().numpy()

    def loop(solver: str, tol: float) -> list[float]:
        model = LogisticRegression(class_weight="balanced", solver=solver, tol=tol, max_iter=1000)
        return [float(model.fit(column[:, None], y).coef_[0, 0]) for column in x.T]

    ours = fit_each(task.scaled, task.labels)[0][::step].cpu().numpy()
    error = np.abs(ours / np.array(loop("lbfgs", 1e-10)) - 1).max()
    if error > 1e-5:
        raise RuntimeError(f"coefficients differ by {error:.1e}: expected 1e-5")
    times = interleave(
        {
            "ours": lambda: fit_each(task.scaled, task.labels),
            "saga": lambda: loop("saga", 1e-4),
            "lbfgs": lambda: loop("lbfgs", 1e-10),
        },
        rounds,
    )
    for peer, goal in (("saga", 40), ("lbfgs", 25)):
        yield Line(
            f"k = 1 of {NEURONS} neurons, over scikit-learn's {peer}",
            times.ratio("ours", peer) / step,
            1 / goal,
            f"{times.median('ours'):.2f} s, coefficients within {error:.0e}",
        )


def telescope(device: torch.device, rounds: int) -> Iterator[Line]:
    """15 values of k against the same pruning by elastic-net fits."""
    task = Task.of(2000, device)
    ranking = rank(task.scaled, task.labels)
    x, y = task.scaled.cpu().numpy(), task.labels.cpu().numpy()

    def loop() -> dict[int, list[int]]:
        units, found = top(ranking, max(SERIES)).cpu().numpy(), {}
        for k in sorted(SERIES, reverse=True):
            model = LogisticRegression(
                l1_ratio=0.1,
                class_weight="balanced",
                solver="saga",
                max_iter=1000,
                random_state=0,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(x[:, units[:k]], y)
            found[k] = sorted(units[:k].tolist())
            units = units[:k][np.argsort(-np.abs(model.coef_[0]), kind="stable")]
        return found

    theirs, ours = loop(), supports(task.scaled, task.labels, ranking, SERIES)
    alike = sum(one.units.tolist() == theirs[k] for k, one in ours.items())
    times = interleave(
        {"ours": lambda: supports(task.scaled, task.labels, ranking, SERIES), "loop": loop}, rounds
    )
    yield Line(
        f"telescope over {len(SERIES)} values of k, over an elastic-net loop",
        times.ratio("ours", "loop"),
        1 / 6,
        f"{times.median('ours'):.2f} s, {alike} of {len(SERIES)} supports the same",
    )


def significance(device: torch.device, rounds: int) -> Iterator[Line]:
    """1000 permutations of whole groups, all neurons of a GPT-2-small-shaped model."""
    random = torch.Generator().manual_seed(1)
    acts = torch.randn(DOCUMENTS * TOKENS, LAYERS * NEURONS, generator=random).to(device)
    labels = (torch.rand(len(acts), generator=random) < 0.3).long()
    groups = torch.arange(DOCUMENTS).repeat_interleave(TOKENS)
    times = interleave({"ours": lambda: max_t(acts, labels, groups, permutations=1000)}, rounds)
    yield Line(
        f"maxT, 1000 permutations of {DOCUMENTS} groups, {LAYERS * NEURONS} neurons",
        times.median("ours"),
        20.0,
        f"{len(acts)} examples",
        "s",
    )


def moments(device: torch.device) -> Line:
    """Class moments of 8 features and 36,864 neurons, a layer and a batch at a time."""
    random = torch.Generator().manual_seed(2)
    labels = torch.randint(2, (FEATURES, BATCH), generator=random).to(device)

    def stream() -> list[Moments]:
        found = [Moments.empty(FEATURES, NEURONS) for _ in range(LAYERS)]
        for _ in range(4):
            for layer in range(LAYERS):
                acts = torch.randn(BATCH, NEURONS, device=device)
                new = Moments.of(acts, labels)
                found[layer] = found[layer].merge(
                    Moments(new.count.cpu(), new.mean.cpu(), new.spread.cpu())
                )
        return found

    stream()  # once, for what libraries take at the first call
    return Line(
        f"memory of streamed moments, {FEATURES} features x {LAYERS * NEURONS} neurons",
        peak_mib(stream, device),
        50.0,
        f"batches of {BATCH} tokens",
        "MiB",
    )

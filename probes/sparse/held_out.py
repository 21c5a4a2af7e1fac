"""One feature at one layer, from the columns of a shortlist: fitted, thresholded, and held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.sparse.scores import Scores, best_threshold, f1_interval, scores
from probes.sparse.solvers import Scale
from probes.sparse.supports import Method, supports

__all__ = ["Direction", "Examples", "Probe", "dense", "direction", "held_out"]


@dataclass(frozen=True)
class Examples:
    """What is known of the examples of one feature.

    Attributes:
        labels: [n] 0 and 1.
        groups: [n] codes.
        part: [n] 0, 1, 2 for training, validation, test.
    """

    labels: Tensor
    groups: Tensor
    part: Tensor

    @property
    def train(self) -> Tensor:
        """[n] whether an example is one to fit on."""
        return self.part == 0

    @property
    def test(self) -> Tensor:
        """[n] whether an example is held out."""
        return self.part == 2


@dataclass(frozen=True)
class Direction:
    """How well logits tell a feature on held-out examples.

    Attributes:
        scores: at the threshold that is chosen on training and validation.
        at_zero: at a threshold of 0.
        threshold: in logits.
        low, high: 95% interval of F1 over test groups.
        validation: F1 on validation, at the same threshold.
        said: [test examples] whether one is called positive.
    """

    scores: Scores
    at_zero: Scores
    threshold: float
    low: float
    high: float
    validation: float
    said: Tensor


@dataclass(frozen=True)
class Probe:
    """A sparse probe and how it does.

    Attributes:
        units: [k] indices of columns.
        weight: [k] of activations as they are, and bias: logit = weight . a + bias.
        strongest: [k] units by falling weight of standardised activations.
        held_out: its figures.
    """

    units: Tensor
    weight: Tensor
    bias: float
    strongest: Tensor
    held_out: Direction


def held_out(
    columns: Tensor,
    ranking: Tensor,
    examples: Examples,
    ks: Sequence[int],
    *,
    method: Method = "telescope",
    c: float = 1.0,
    seed: int = 0,
) -> dict[int, Probe]:
    """The probe of each k: units and weights from training, threshold with validation, test held out.

    Args:
        columns: [n, shortlist] activations of the units to choose from.
        ranking: [shortlist] the ranker's scores on training.
    """
    train = examples.train
    scale = Scale.of(columns[train])
    scaled = scale(columns)
    found = supports(scaled[train], examples.labels[train], ranking, ks, method=method, c=c)
    probes = {}
    for k, one in found.items():
        spread = torch.where(scale.spread > 0, scale.spread, 1.0)[one.units]
        weight = one.weight / spread
        order = one.weight.abs().argsort(descending=True, stable=True)
        probes[k] = Probe(
            units=one.units,
            weight=weight,
            bias=float(one.bias - weight @ scale.mean[one.units]),
            strongest=one.units[order],
            held_out=direction(one.scores(scaled), examples, seed=seed),
        )
    return probes


def direction(logits: Tensor, examples: Examples, *, seed: int = 0) -> Direction:
    """The figures of [n] logits."""
    known, test = ~examples.test, examples.test
    threshold = best_threshold(logits[known], examples.labels[known])
    middle = examples.part == 1
    low, high = f1_interval(
        logits[test], examples.labels[test], examples.groups[test], threshold, seed=seed
    )
    return Direction(
        scores=scores(logits[test], examples.labels[test], threshold),
        at_zero=scores(logits[test], examples.labels[test]),
        threshold=threshold,
        low=low,
        high=high,
        validation=scores(logits[middle], examples.labels[middle], threshold).f1,
        said=(logits[test] > threshold).cpu(),
    )


def dense(acts: Tensor, examples: Examples, *, c: float = 1.0, seed: int = 0) -> Direction:
    """A class-balanced L2 logistic regression on every unit, standardised; scikit-learn's."""
    from sklearn.linear_model import LogisticRegression

    train = examples.train
    scaled = Scale.of(acts[train])(acts).cpu().numpy()
    model = LogisticRegression(C=c, class_weight="balanced", tol=1e-6, max_iter=1000)
    model.fit(scaled[train.cpu().numpy()], examples.labels[train].cpu().numpy())
    return direction(torch.from_numpy(model.decision_function(scaled)), examples, seed=seed)

"""How well scores tell a feature: held-out figures with their baselines and intervals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Scores", "best_threshold", "f1_interval", "scores"]

RESAMPLES = 1000


@dataclass(frozen=True)
class Scores:
    """Figures of one probe on one set of examples.

    Attributes:
        f1, precision, recall: 2 P R / (P + R), P, R of the thresholded scores; 0 where P or R has
            nothing to divide by.
        mcc: Matthews' correlation of label and prediction; 0 for a constant prediction.
        average_precision: area under precision against recall, from the scores themselves.
        roc_auc: area under the ROC curve, from the scores.
        all_positive: F1 of calling everything positive, 2 pi / (1 + pi) at a share pi of positives.
        random: F1 of calling a share pi at random positive, which is pi; also the baseline of average
            precision.
    """

    f1: float
    precision: float
    recall: float
    mcc: float
    average_precision: float
    roc_auc: float
    all_positive: float
    random: float


def scores(logits: Tensor, labels: Tensor, threshold: float = 0.0) -> Scores:
    """The figures of [n] logits against [n] labels; both classes must be there."""
    truth, said = labels.bool(), logits > threshold
    hits, called, positives = (int(one.sum()) for one in (truth & said, said, truth))
    share = positives / len(labels)
    average_precision, roc_auc = _of_order(logits, truth)
    return Scores(
        f1=2 * hits / (called + positives) if hits else 0.0,
        precision=hits / called if called else 0.0,
        recall=hits / positives,
        mcc=_correlation(hits, called, positives, len(labels)),
        average_precision=average_precision,
        roc_auc=roc_auc,
        all_positive=2 * share / (1 + share),
        random=share,
    )


def _correlation(hits: int, called: int, positives: int, n: int) -> float:
    below = called * (n - called) * positives * (n - positives)
    return (n * hits - called * positives) / below**0.5 if below else 0.0


def _of_order(logits: Tensor, truth: Tensor) -> tuple[float, float]:
    """Average precision, sum over thresholds of (R_n - R_n-1) P_n, and ROC-AUC by mean ranks."""
    _, code = torch.unique(logits, return_inverse=True)
    size = torch.bincount(code).double()
    hits = torch.bincount(code, truth.double(), minlength=len(size))
    precision = hits.flip(0).cumsum(0) / size.flip(0).cumsum(0)
    positives, negatives = hits.sum(), (size - hits).sum()
    below = (size - hits).cumsum(0) - (size - hits) / 2  # ties count half
    average_precision = (hits.flip(0) * precision).sum() / positives
    return float(average_precision), float((hits * below).sum() / (positives * negatives))


def best_threshold(logits: Tensor, labels: Tensor) -> float:
    """The threshold of greatest F1 for `logits > threshold`: of training and validation alone.

    Midway between two neighbouring scores, so that held-out scores near it are not cut by rounding;
    of equal F1, the highest threshold.
    """
    values, order = logits.double().sort(descending=True)
    hits = labels[order].double().cumsum(0)
    called = torch.arange(1, len(values) + 1, device=values.device)
    f1 = 2 * hits / (called + labels.sum())
    last_of_its_value = torch.cat([values[1:] < values[:-1], values.new_ones(1).bool()])
    best = int(torch.where(last_of_its_value, f1, -1.0).argmax())
    below = values[best + 1] if best + 1 < len(values) else values[best] - 1
    return float((values[best] + below) / 2)


def f1_interval(
    logits: Tensor,
    labels: Tensor,
    groups: Tensor,
    threshold: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of F1 over whole groups.

    Groups are drawn with replacement, as many as there are; draws without a positive, of which F1 says
    nothing, are left out.
    """
    _, code = torch.unique(groups, return_inverse=True)
    count, said, truth = int(code.max()) + 1, logits > threshold, labels.bool()
    tallies = torch.zeros(count, 3, dtype=torch.float64)  # true positives, called, positives
    each = torch.stack([said & truth, said, truth], dim=1).double().cpu()
    tallies.index_add_(0, code.cpu(), each)
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (resamples, count), generator=random)
    sums = tallies[drawn].sum(1)
    sums = sums[sums[:, 2] > 0]
    f1 = 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2])
    low, high = torch.quantile(f1, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high

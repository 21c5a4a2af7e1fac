"""How promising each unit is for a feature, by itself: larger is better.

Mean difference and F need moments alone (see `probes.sparse.moments`); the others the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from probes.sparse.moments import Moments

__all__ = ["RANKERS", "STREAMED", "Ranker", "by_moments", "rank", "top"]

Ranker = Literal["mean_difference", "f_statistic", "auc", "mutual_information", "l1"]
RANKERS: tuple[Ranker, ...] = get_args(Ranker)
STREAMED: tuple[Ranker, ...] = ("mean_difference", "f_statistic")
BINS = 16  # of equally many activations each


def by_moments(moments: Moments, ranker: Ranker) -> Tensor:
    """[features, units] scores of the rankers that need moments alone."""
    found: Mapping[str, Callable[[], Tensor]] = {
        "mean_difference": lambda: moments.mean_difference().abs(),
        "f_statistic": moments.f_statistic,
    }
    return found[ranker]()


def rank(acts: Tensor, labels: Tensor, ranker: Ranker = "mean_difference") -> Tensor:
    """[units] scores of one feature.

    "mean_difference": |mu_1 - mu_0|, the paper's default; it follows a unit's scale. "f_statistic": of
    a one-way analysis of variance. "auc": |AUC - 1/2|, the area under the ROC curve of the activation
    by itself. "mutual_information": of the label and the activation's bin, nat; 16 bins of equally
    many activations. "l1": |weight| in an L1 logistic regression over all standardised units.

    Args:
        acts: [N, units].
        labels: [N] 0 and 1.
    """
    if ranker in STREAMED:
        return by_moments(Moments.of(acts, labels[None]), ranker)[0]
    found = {"auc": _auc, "mutual_information": _information, "l1": _l1}
    return found[ranker](acts.double(), labels.bool())


def top(scores: Tensor, count: int) -> Tensor:
    """[count] the best units, the best first; of equal ones the first."""
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :count]


def _auc(acts: Tensor, labels: Tensor) -> Tensor:
    """Mann and Whitney's U by mean ranks, tied activations sharing theirs."""
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(acts.cpu().numpy(), axis=0))
    n1 = int(labels.sum())
    u: Tensor = ranks[labels.cpu()].sum(0) - n1 * (n1 + 1) / 2
    return (u / (n1 * (len(labels) - n1)) - 0.5).abs()


def _information(acts: Tensor, labels: Tensor) -> Tensor:
    edges = torch.quantile(acts, torch.linspace(0, 1, BINS + 1, dtype=acts.dtype)[1:-1], dim=0)
    bins = torch.searchsorted(edges.T.contiguous(), acts.T.contiguous())  # [units, N]
    joint = torch.zeros(len(bins), 2, BINS, dtype=torch.float64)
    for value in (0, 1):
        own = bins[:, labels == bool(value)]
        joint[:, value].scatter_add_(1, own, torch.ones(own.shape, dtype=torch.float64))
    joint /= len(labels)
    apart = joint.sum(1, keepdim=True) * joint.sum(2, keepdim=True)
    shared: Tensor = torch.xlogy(joint, joint / apart.clamp(min=1e-300))
    return shared.sum((1, 2))


def _l1(acts: Tensor, labels: Tensor) -> Tensor:
    from sklearn.linear_model import LogisticRegression

    spread = acts.std(0, correction=0)
    scaled = (acts - acts.mean(0)) / torch.where(spread > 0, spread, 1.0)
    model = LogisticRegression(
        l1_ratio=1.0, C=0.1, class_weight="balanced", solver="liblinear", random_state=0
    )
    return torch.from_numpy(np.abs(model.fit(scaled.numpy(), labels.numpy()).coef_[0]))

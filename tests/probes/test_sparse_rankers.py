"""Rankers against scipy, scikit-learn and planted units; moments in any split against all at once."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import f_oneway
from sklearn.metrics import mutual_info_score, roc_auc_score

from probes.sparse.moments import Moments
from probes.sparse.rankers import RANKERS, by_moments, rank, top


def data(seed: int, n: int = 400, units: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal activations; labels of 30% positives."""
    random = torch.Generator().manual_seed(seed)
    acts = torch.randn(n, units, generator=random, dtype=torch.float64)
    return acts, (torch.rand(n, generator=random) < 0.3).long()


@pytest.mark.parametrize("ranker", RANKERS)
def test_a_planted_unit_comes_first(ranker: str) -> None:
    acts, labels = data(0)
    acts[:, 17] += 4 * labels
    assert top(rank(acts, labels, ranker), 1).item() == 17  # type: ignore[arg-type]


def test_moments_of_any_split_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means of 1e4 beside spreads of 1; missing labels count for nothing; seven units at once."""
    monkeypatch.setattr("probes.sparse.moments.BLOCK", 7)
    acts, labels = data(1)
    acts += 1e4
    both = torch.stack([labels, torch.where(torch.arange(400) % 3 == 0, -1, 1 - labels)])
    whole = Moments.of(acts, both)
    cut = (0, 1, 90, 333, 400)  # the first batch has one example, of one class
    parts = Moments.empty(2, 30)
    for a, b in pairwise(cut):
        parts = parts.merge(Moments.of(acts[a:b], both[:, a:b]))
    for name, value in whole.state().items():  # float64: 1e4 * 1e-16 of a mean, and of its squares
        torch.testing.assert_close(parts.state()[name], value, rtol=1e-9, atol=1e-9)
    kept = both[1] >= 0
    mean, spread = whole.whole()
    torch.testing.assert_close(mean[1], acts[kept].mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(spread[1], acts[kept].std(0, correction=0), rtol=1e-9, atol=0)


def test_f_is_scipys_also_far_from_zero_and_in_float32() -> None:
    acts, labels = data(2)
    acts = (acts + 100).float()
    acts[:, 3] = 5.0
    others = [i for i in range(30) if i != 3]
    found = by_moments(Moments.of(acts, labels[None]), "f_statistic")[0]
    assert found[3] == 0
    wide, has = acts[:, others].double().numpy(), labels.bool().numpy()
    reference = f_oneway(wide[has], wide[~has]).statistic
    np.testing.assert_allclose(found[others], reference, rtol=1e-8)  # float64 of (100 / 1)^2


def test_f_of_a_perfect_unit_is_infinite() -> None:
    _, labels = data(3)
    assert rank(labels[:, None].double(), labels, "f_statistic").isinf().all()


def test_auc_and_information_are_scikit_learns() -> None:
    """With ties: activations rounded to tenths, and a unit that is mostly 0."""
    acts, labels = data(4)
    acts = (10 * acts).round() / 10
    acts[:, 5] = acts[:, 5].clamp(min=0.8)
    auc = [abs(roc_auc_score(labels, column) - 0.5) for column in acts.T.numpy()]
    np.testing.assert_allclose(rank(acts, labels, "auc"), auc, atol=1e-12)
    cuts = np.quantile(acts.numpy(), np.linspace(0, 1, 17)[1:-1], axis=0)
    binned = [np.searchsorted(cuts[:, i], acts[:, i].numpy()) for i in range(30)]
    shared = [mutual_info_score(labels, column) for column in binned]
    np.testing.assert_allclose(rank(acts, labels, "mutual_information"), shared, atol=1e-12)

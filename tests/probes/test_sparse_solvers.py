"""Solvers against scikit-learn and transformer-lens; supports against planted ones and brute force."""

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformer_lens.tools.analysis.sparse_probing import fit_sparse_probe

from probes.sparse.held_out import Examples, dense, held_out
from probes.sparse.rankers import RANKERS, rank
from probes.sparse.solvers import Scale, fit_each, fit_supports
from probes.sparse.splits import split_by_group
from probes.sparse.supports import METHODS, supports
from workbench import ModelError


def data(n: int = 600, units: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised heavy-tailed columns of all scales, one constant; 20% positives."""
    random = torch.Generator().manual_seed(seed)
    acts = torch.randn(n, units, generator=random, dtype=torch.float64) ** 3
    labels = (acts[:, 1] + acts[:, 2] + torch.randn(n, generator=random) > 2).long()
    acts = acts * 10 ** torch.linspace(-4, 5, units, dtype=torch.float64) + 3
    acts[:, units // 2 - 1] = 3.0
    return Scale.of(acts)(acts), labels


def reference(x: torch.Tensor, labels: torch.Tensor, c: float) -> tuple[np.ndarray, float]:
    model = LogisticRegression(
        C=c, class_weight="balanced", solver="newton-cholesky", tol=1e-8, max_iter=1000
    ).fit(x.numpy(), labels.numpy())
    return model.coef_[0], float(model.intercept_[0])


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_coefficients_are_scikit_learns(c: float) -> None:
    """1e-5 relative; of those near 0, to 1e-8, where scikit-learn's own tolerance ends."""
    x, labels = data()
    weights, biases = fit_each(x, labels, c=c)
    wide = torch.tensor([[0, 1, 2, 5], [3, 2, 9, 11]])
    several = fit_supports(x, wide, labels, c=c)
    for unit in set(range(x.shape[1])) - {5}:  # scikit-learn begins at a constant one's minimum
        weight, bias = reference(x[:, [unit]], labels, c)
        np.testing.assert_allclose(weights[unit], weight[0], rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(biases[unit], bias, rtol=1e-5, atol=1e-8)
    for row, support in enumerate(wide):
        weight, bias = reference(x[:, support], labels, c)
        np.testing.assert_allclose(several.weight[row], weight, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(several.bias[row], bias, rtol=1e-5, atol=1e-8)
    assert weights[5] == 0  # the constant column


def test_coefficients_are_transformer_lens() -> None:
    """Its objective is ours over n C: l2 = 1 / (n C). It fits its own split, which is taken over."""
    x, labels = data(units=4)
    c, fraction = 0.5, 0.25
    n = 600 - sum(round(fraction * int((labels == value).sum())) for value in (0, 1))
    theirs = fit_sparse_probe(x, labels, k=2, test_fraction=fraction, l2_strength=1 / (n * c))
    train = theirs.train_indices
    assert len(train) == n
    ours = fit_supports(x[train], theirs.selected_features[None], labels[train], c=c)
    torch.testing.assert_close(ours.weight[0], theirs.coefficients, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(ours.bias[0], theirs.intercept, rtol=1e-5, atol=1e-8)


def test_many_columns_are_solved_as_few_are() -> None:
    """At 64 columns scikit-learn takes over: the same minimum as 63 columns and one of zeros."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(300, 64, generator=random, dtype=torch.float64)
    labels = (x[:, :8].sum(1) > 0).long()
    x[:, 63] = 0
    large = fit_supports(x, torch.arange(64)[None], labels)
    small = fit_supports(x, torch.arange(63)[None], labels)
    torch.testing.assert_close(large.weight[:, :63], small.weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(large.loss, small.loss, rtol=1e-9, atol=0)


def test_separable_and_duplicate_columns() -> None:
    """Finite, by the penalty; and twice the same column shares its weight equally."""
    labels = torch.arange(200) % 2
    x = (2.0 * labels - 1).double()[:, None].repeat(1, 2)
    fit = fit_supports(x, torch.tensor([[0, 1]]), labels, c=1e6)
    assert fit.weight.isfinite().all()
    torch.testing.assert_close(fit.weight[0, 0], fit.weight[0, 1])


def test_scales_do_not_change_predictions() -> None:
    """Columns times 1e-4 to 1e5: the standardised columns are equal up to rounding."""
    random = torch.Generator().manual_seed(2)
    acts = torch.randn(200, 6, generator=random, dtype=torch.float64)
    labels = (acts[:, 0] > 0.3).long()
    scales = 10 ** torch.tensor([-4.0, -2, 0, 1, 3, 5], dtype=torch.float64)
    logits = []
    for made in (acts, acts * scales):
        x = Scale.of(made)(made)
        weight, bias = fit_each(x, labels)
        logits.append(weight * x + bias)
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ModelError, match="not finite"):
        Scale.of(torch.tensor([[1.0], [bad]]))


def scaled(acts: torch.Tensor) -> torch.Tensor:
    return Scale.of(acts)(acts)


@pytest.mark.parametrize("method", METHODS)
def test_methods_find_a_superposed_pair(method: str) -> None:
    """The label is the sign of a sum of two of 40 units: one of them says half, both all."""
    random = torch.Generator().manual_seed(3)
    acts = torch.randn(800, 40, generator=random, dtype=torch.float64)
    labels = (acts[:, 7] + acts[:, 30] > 0).long()
    found = supports(scaled(acts), labels, rank(acts, labels), [1, 2, 4], method=method)  # type: ignore[arg-type]
    assert found[2].units.tolist() == [7, 30]
    assert found[1].units.item() in (7, 30)
    right = ((found[2].scores(scaled(acts)) > 0).long() == labels).double().mean()
    assert right > 0.98


def test_exhaustive_is_the_least_loss_of_all_subsets() -> None:
    random = torch.Generator().manual_seed(4)
    acts = torch.randn(150, 6, generator=random, dtype=torch.float64)
    labels = (torch.rand(150, generator=random) < 0.4).long()
    x = scaled(acts)
    found = supports(x, labels, rank(acts, labels), [1, 2, 3], method="exhaustive", shortlist=5)
    shortlist = rank(acts, labels).argsort(descending=True)[:5].tolist()
    for k in (1, 2):
        every = torch.tensor(list(combinations(sorted(shortlist), k)))
        losses = fit_supports(x, every, labels).loss
        assert found[k].units.tolist() == every[losses.argmin()].tolist()
    swap = supports(x, labels, rank(acts, labels), [2], method="swap", shortlist=5)[2]
    telescope = supports(x, labels, rank(acts, labels), [2])[2]
    assert found[2].loss <= swap.loss <= telescope.loss


def probed(
    acts: torch.Tensor, labels: torch.Tensor, ks: list[int], ranker: str = "mean_difference"
) -> dict[int, float]:
    """Held-out F1 by k, and of a dense probe (k = 0); groups of four examples."""
    groups = torch.arange(len(labels)) // 4
    examples = Examples(labels, groups, split_by_group(labels, groups, "x"))
    ranking = rank(acts[examples.train], labels[examples.train], ranker)  # type: ignore[arg-type]
    found = {k: one.held_out.scores.f1 for k, one in held_out(acts, ranking, examples, ks).items()}
    return {0: dense(acts, examples).scores.f1, **found}


@pytest.mark.parametrize("ranker", RANKERS)
def test_one_planted_neuron_is_found_by_every_ranker(ranker: str) -> None:
    random = torch.Generator().manual_seed(5)
    acts = torch.randn(800, 30, generator=random, dtype=torch.float64)
    labels = (torch.rand(800, generator=random) < 0.3).long()
    acts[:, 9] = 3.0 * labels + 0.1 * acts[:, 9]
    assert probed(acts, labels, [1], ranker)[1] == 1.0


def test_superposed_pair_conjunction_and_exclusive_or() -> None:
    """Of two units in {0, 1}: (1, 1) but not (1, 0) or (0, 1); and one of them but not both."""
    random = torch.Generator().manual_seed(6)
    acts = 0.1 * torch.randn(1200, 20, generator=random, dtype=torch.float64)
    a, b = (torch.rand(2, 1200, generator=random) < 0.5).long()
    acts[:, 4] += a
    acts[:, 11] += b
    both = probed(acts, a * b, [1, 2])
    assert both[2] > 0.95  # a plane cuts off one corner
    assert both[1] < 0.75  # one unit calls half of its own right: F1 2/3
    either = a ^ b
    found = probed(acts, either, [2])
    for f1 in found.values():
        assert f1 < 0.72  # of calling everything positive: 2/3
    product = torch.cat([acts, ((acts[:, 4] - 0.5) * (acts[:, 11] - 0.5))[:, None]], dim=1)
    assert probed(product, either, [1])[1] > 0.97


def test_nothing_but_the_figures_is_of_held_out_labels() -> None:
    """Other labels of test examples leave units, weights, threshold and validation as they were."""
    random = torch.Generator().manual_seed(8)
    acts = torch.randn(400, 12, generator=random, dtype=torch.float64)
    labels = (acts[:, 2] + torch.randn(400, generator=random) > 0.5).long()
    groups = torch.arange(400) // 4
    part = split_by_group(labels, groups, "x")
    train = part == 0
    ranking = rank(acts[train], labels[train])
    found, other = (
        held_out(acts, ranking, Examples(one, groups, part), [1, 3])
        for one in (labels, torch.where(part == 2, 1 - labels, labels))
    )
    for k, probe in found.items():
        assert probe.units.equal(other[k].units)
        assert probe.weight.equal(other[k].weight)
        assert probe.held_out.threshold == other[k].held_out.threshold
        assert probe.held_out.validation == other[k].held_out.validation
        assert probe.held_out.scores.f1 != other[k].held_out.scores.f1


def test_shuffled_labels_are_at_the_baseline() -> None:
    """No better than calling everything positive, within four standard errors of F1."""
    random = torch.Generator().manual_seed(7)
    acts = torch.randn(2000, 50, generator=random, dtype=torch.float64)
    labels = (torch.rand(2000, generator=random) < 0.3).long()
    for f1 in probed(acts, labels, [1, 4, 16]).values():
        assert f1 < 2 * 0.3 / 1.3 + 4 * 0.035  # 400 test examples, 120 positives

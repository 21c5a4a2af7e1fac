"""Components, hard clusters, silhouettes and dimensions against scipy, scikit-learn and known clouds."""

import math

import pytest
import torch
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import adjusted_rand_score, silhouette_score
from torch import Tensor

from probes.particles.clustering import agglomerative, hdbscan, kmeans, silhouette
from probes.particles.clusters import component_labels, components
from probes.particles.dimension import FEWEST_POINTS, two_nn, without_duplicates
from tests.probes.test_particle_metrics import directions, every, poisoned, some
from workbench import SettingError


def around(centres: Tensor, size: int, spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """`size` unit vectors around each centre, and their labels."""
    labels = torch.arange(len(centres)).repeat_interleave(size)
    u = centres[labels] + spread * directions(len(labels), centres.shape[-1], seed=seed)
    return u / u.norm(dim=-1, keepdim=True), labels


@pytest.mark.parametrize("threshold", [-0.2, 0.3, 0.5, 0.7])
def test_components_as_scipy(threshold: float) -> None:
    u = directions(4, 60, 5)
    mask = some(u)
    labels = component_labels(poisoned(u, mask), mask, threshold)
    for one, here, ours in zip(u, mask, labels, strict=True):
        number, theirs = connected_components((one[here] @ one[here].T > threshold).numpy())
        assert (ours[~here] == -1).all()
        assert len(ours[here].unique()) == number
        assert adjusted_rand_score(ours[here], theirs) == 1
    numbers = components(poisoned(u, mask), mask, threshold)
    assert numbers.tolist() == [len(ours[ours >= 0].unique()) for ours in labels]


def test_components_of_a_long_chain_in_any_order() -> None:
    """Neighbours 1 degree apart on an arc: one component, two where a gap is."""
    angle = torch.deg2rad(torch.arange(300.0, dtype=torch.float64))
    u = torch.stack([angle.cos(), angle.sin()], dim=-1)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 300, dtype=torch.bool)
    mask[1, 150] = False
    both = u.expand(2, 300, 2)[:, order]
    assert components(both, mask[:, order], math.cos(math.radians(1.5))).tolist() == [1, 2]


def test_silhouette_as_scikit_learn() -> None:
    """Batched, with masked tokens, tokens in no cluster, a cluster of one and one that is empty."""
    u, labels = around(directions(4, 6, seed=5), 8, 0.8)
    labels[0], labels[1], labels[labels == 2] = 5, -1, 7
    u, labels = torch.stack([u, u.flip(0)]), torch.stack([labels, labels])
    mask = some(u)
    mask[:, 0] = True
    here = mask & (labels >= 0)
    theirs = [
        silhouette_score(one[in_], which[in_], metric="cosine")
        for one, which, in_ in zip(u, labels, here, strict=True)
    ]
    ours = silhouette(poisoned(u, mask), labels.masked_fill(~mask, 10**9), mask)
    torch.testing.assert_close(ours.tolist(), theirs, rtol=1e-12, atol=1e-12)  # sums of 32 numbers


def test_silhouette_of_coinciding_tokens_and_of_too_few_clusters() -> None:
    u = torch.eye(2, dtype=torch.float64)[torch.tensor([0, 0, 0, 1, 1])]
    assert silhouette(u, torch.tensor([0, 0, 0, 1, 1]), every(u)) == 1
    assert silhouette(u[:3], torch.tensor([0, 0, 1]), every(u[:3])) == 0  # all distances are 0
    assert silhouette(u, torch.arange(5), every(u)) == 0  # each alone
    for labels in (torch.zeros(5).long(), torch.full((5,), -1)):
        assert silhouette(u, labels, every(u)).isnan()


def test_hard_clusters_of_what_is_clustered() -> None:
    u, truth = around(torch.eye(8, dtype=torch.float64)[:3], 12, 0.3)
    mask = some(u)
    for labels in (kmeans(poisoned(u, mask), mask, 3), agglomerative(poisoned(u, mask), mask)):
        assert (labels[~mask] == -1).all()
        assert adjusted_rand_score(truth[mask], labels[mask]) == 1
    outlier = torch.cat([u, -torch.ones(1, 8, dtype=torch.float64) / math.sqrt(8)])
    found = hdbscan(outlier, every(outlier))
    assert adjusted_rand_score(truth, found[:-1]) == 1
    assert found[-1] == -1


def test_hard_clusters_of_few_tokens() -> None:
    u = directions(3, 4)
    one = torch.tensor([False, True, False])
    assert agglomerative(u, one).tolist() == kmeans(u, one, 1).tolist() == [-1, 0, -1]
    assert hdbscan(u, one).tolist() == [-1, -1, -1]
    assert kmeans(u[:1].expand(3, 4), every(u), 2).tolist() == [0, 0, 0]  # one place: one cluster
    with pytest.raises(SettingError, match="k 2: expected 1 to 1"):
        kmeans(u, one, 2)
    with pytest.raises(SettingError, match="at least 2"):
        hdbscan(u, one, 1)


def test_dimension_of_too_few_points_is_left_out() -> None:
    """Different ones are counted: 50 of them do, 49 and a copy do not."""
    u = directions(2, 50, 4)
    u[1, 49] = u[1, 0]
    found = two_nn(u, every(u), FEWEST_POINTS)
    assert found.isnan().tolist() == [False, True]
    assert not two_nn(u, every(u)).isnan().any()


@pytest.mark.parametrize("dimension", [2, 5])
def test_dimension_of_known_clouds(dimension: int) -> None:
    """A sphere of that dimension, turned into 30 dimensions: within three standard errors."""
    cloud = directions(2, 1500, dimension + 1)
    u = cloud @ torch.linalg.qr(directions(30, dimension + 1, seed=1)).Q.T
    found = two_nn(u, every(u))
    assert found.tolist() == pytest.approx([dimension] * 2, rel=3 / math.sqrt(0.9 * 1500))


def test_duplicates_change_no_dimension() -> None:
    """Repeated tokens, exactly or to the rounding of float64, stand once."""
    u = directions(2, 80, 6)
    repeated = torch.cat([u, u[:, :30], u[:, :10] * (1 + 1e-15)], dim=1)
    left = without_duplicates(repeated, every(repeated))
    assert left[:, :80].all()
    assert not left[:, 80:].any()
    # the mean that is taken off first differs, and with it the rounding of distances
    torch.testing.assert_close(
        two_nn(repeated, every(repeated)), two_nn(u, every(u)), rtol=1e-9, atol=0
    )
    same = u[:, :1].expand(2, 9, 6)
    assert two_nn(same, every(same)).isnan().all()

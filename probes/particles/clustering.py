"""Hard clusters of one set of tokens, by scikit-learn, and the silhouette of any labels."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from probes.particles.sets import filled, or_nan
from workbench.errors import SettingError

__all__ = ["agglomerative", "hdbscan", "kmeans", "silhouette"]


def kmeans(u: Tensor, mask: Tensor, k: int, seed: int = 0) -> Tensor:
    """K-means on the unit vectors (Lloyd 1982; k-means++ starts, the best of 10).

    On the sphere the squared distance is 2 - 2 cos. It finds k clusters in n random directions too:
    hold its `silhouette` against theirs.

    Args:
        u: [n, d] unit vectors of one set.
        mask: [n] True where a token counts.
        k: number of clusters, at most the number of tokens.
        seed: of the starts.

    Returns:
        [n] labels from 0; -1 where masked.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if not 0 < k <= int(mask.sum()):
        raise SettingError(f"k {k}: expected 1 to {int(mask.sum())}, the number of tokens")
    with warnings.catch_warnings():  # fewer different tokens than k: then there are fewer labels
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _labels(KMeans(k, n_init=10, random_state=seed), u, mask)


def agglomerative(u: Tensor, mask: Tensor, threshold: float = 0.5) -> Tensor:
    """Average linkage of cosines, cut where clusters agree by `threshold` on average (UPGMA).

    Sokal and Michener 1958. Of n random directions n clusters at any threshold well above 1 / sqrt(d).

    Args:
        u: [n, d] unit vectors of one set.
        mask: [n] True where a token counts.
        threshold: the mean cosine between two clusters below which they are not joined.

    Returns:
        [n] labels from 0; -1 where masked.
    """
    from sklearn.cluster import AgglomerativeClustering

    if int(mask.sum()) < 2:
        return mask.long() - 1
    linkage = AgglomerativeClustering(
        None, metric="cosine", linkage="average", distance_threshold=1 - threshold
    )
    return _labels(linkage, u, mask)


def hdbscan(u: Tensor, mask: Tensor, smallest: int = 5) -> Tensor:
    """Density clusters of any number and shape, and noise (Campello, Moulavi and Sander 2013).

    Of n random directions mostly noise.

    Args:
        u: [n, d] unit vectors of one set.
        mask: [n] True where a token counts.
        smallest: the fewest tokens of a cluster, at least 2.

    Returns:
        [n] labels from 0; -1 where masked and for noise.
    """
    from sklearn.cluster import HDBSCAN

    if smallest < 2:
        raise SettingError(f"smallest {smallest}: a cluster has at least 2 tokens")
    if int(mask.sum()) < smallest:
        return torch.full_like(mask, -1, dtype=torch.long)
    return _labels(HDBSCAN(min_cluster_size=smallest, copy=True), u, mask)


def _labels(method: object, u: Tensor, mask: Tensor) -> Tensor:
    labels = torch.full_like(mask, -1, dtype=torch.long)
    points = filled(u, mask)[mask].cpu().numpy()
    labels[mask] = torch.as_tensor(method.fit_predict(points)).long().to(u.device)  # type: ignore[attr-defined]
    return labels


def silhouette(u: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """The mean of (b - a) / max(a, b): how much closer a token is to its own cluster than to the next.

    Rousseeuw 1987, with distances 1 - cosine. a is the mean distance to the others of the token's own
    cluster, b the least mean distance to another cluster; 0 for a token alone in its cluster. From
    cluster sums S_C it is O(n k d) and needs no pairs: the mean of 1 - <u_i, u_j> over j in C is
    1 - <u_i, S_C> / |C|. From -1 to 1; of n random directions with random labels 0.

    Args:
        u: [..., n, d] unit vectors.
        labels: [..., n] integers; tokens below 0 are in no cluster and do not count.
        mask: [..., n] True where a token counts.

    Returns:
        [...]; NaN of fewer than two clusters.
    """
    mask = mask & (labels >= 0)
    vectors = filled(u, mask)
    member = _membership(labels, mask).to(vectors.dtype)
    size = member.sum(-2)
    own = (member @ size[..., None])[..., 0]
    distance = 1 - (vectors @ (member.mT @ vectors).mT) / size.clamp(min=1)[..., None, :]
    # the distance to itself is 0 and does not count: |C| / (|C| - 1) of the mean over all of C
    within = (distance * member).sum(-1).clamp(min=0) * own / (own - 1)
    other = (member > 0) | (size[..., None, :] == 0)
    between = distance.masked_fill(other, torch.inf).amin(-1).clamp(min=0)
    score = ((between - within) / torch.maximum(between, within)).nan_to_num(0.0)
    score = score.masked_fill(own < 2, 0.0)
    return or_nan(score.sum(-1) / mask.sum(-1), (size > 0).sum(-1) > 1)


def _membership(labels: Tensor, mask: Tensor) -> Tensor:
    """[..., n, k] 1 where a token is in a cluster."""
    cluster = torch.where(mask, labels + 1, 0)  # 0: in none
    return one_hot(cluster, max(int(cluster.max()), 1) + 1)[..., 1:]

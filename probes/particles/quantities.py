"""What is measured of a set of particles: names, units, ends, and what chance gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "COUNTS",
    "HARD",
    "HISTOGRAMS",
    "LEADING",
    "LEFT",
    "OF_THE_PATH",
    "QUANTILES",
    "QUANTITIES",
    "Quantity",
]


@dataclass(frozen=True)
class Quantity:
    """One number of a prompt's tokens at a layer.

    Attributes:
        title: what figures call it.
        unit: its unit; "1" for a pure number.
        low, high: the least and the largest that it can be.
    """

    title: str
    unit: str = "1"
    low: float = 0.0
    high: float = math.inf


QUANTITIES: Mapping[str, Quantity] = {
    "mean_cosine": Quantity("mean cosine", low=-1.0, high=1.0),
    "order_parameter": Quantity("order parameter r", high=1.0),
    "order_debiased": Quantity("order parameter less chance", high=1.0),
    "participation_ratio": Quantity("participation ratio", "cluster"),
    "vendi": Quantity("Vendi score", "cluster"),
    "intrinsic_dimension": Quantity("intrinsic dimension (TwoNN)", "dimension"),
    "silhouette": Quantity("silhouette of k-means clusters", low=-1.0, high=1.0),
    "agglomerative": Quantity("agglomerative clusters at mean cosine > .5", "cluster"),
    "hdbscan": Quantity("HDBSCAN clusters of at least 5 tokens", "cluster"),
    "hdbscan_noise": Quantity("tokens in no HDBSCAN cluster", "share", high=1.0),
    "components": Quantity("components at cosine > .95", "cluster"),
    "concentration": Quantity("mean cosine with the nearest other token", low=-1.0, high=1.0),
    "coinciding": Quantity("pairs at cosine > .999", "share", high=1.0),
    "cosine_5": Quantity("cosine below which 5% of pairs lie", low=-1.0, high=1.0),
    "cosine_50": Quantity("median cosine of pairs", low=-1.0, high=1.0),
    "cosine_95": Quantity("cosine below which 95% of pairs lie", low=-1.0, high=1.0),
    "component_share": Quantity(
        "part of the variance along the first principal component", "share", high=1.0
    ),
    "energy": Quantity("interaction energy"),
    "force": Quantity("mean length of the mean-field force", high=1.0),
    "spin_energy": Quantity("energy of a spin", low=-0.5, high=0.0),
    "rank_residual": Quantity("relative rank residual", high=1.0),
    "composite_residual": Quantity(
        "rank residual, composite norm, alike raw and centred", "length of states"
    ),
    "composite_share": Quantity("rank residual over the states' norm, both composite"),
    "step": Quantity("step |dx| / |x|"),
    "turn": Quantity("cosine with the step before", low=-1.0, high=1.0),
    "top_dimensions_energy": Quantity(
        "part of |x|^2 in the 3 largest dimensions", "share", high=1.0
    ),
    "top_dimensions_cosine": Quantity(
        "part of |S|^2 in the 3 largest dimensions", "share", high=1.0
    ),
    "tokens": Quantity("tokens that count", "token"),
    "sinks": Quantity("tokens left out by their norm", "token"),
    "zeros": Quantity("tokens left out for having no direction", "token"),
    "straightness": Quantity("straightness of the path through all layers", high=1.0),
}
"""By the name of the variable and the row's key."""

HISTOGRAMS: Mapping[str, Quantity] = {
    "cosine_histogram": Quantity("pairs by their cosine", "share", high=1.0),
    "component_histogram": Quantity(
        "tokens by their cosine with the first principal component", "share", high=1.0
    ),
}
"""What has a number for each bin of cosines."""
QUANTILES: Mapping[str, float] = {"cosine_5": 0.05, "cosine_50": 0.5, "cosine_95": 0.95}
HARD = ("silhouette", "agglomerative", "hdbscan", "hdbscan_noise")
"""What is computed where clusters are asked for."""
LEFT = ("tokens", "sinks", "zeros")
"""What exists of any set."""
OF_THE_PATH = ("straightness",)
LEADING = ("mean_cosine", "order_parameter")
"""What is drawn, and has the ends of its draws in rows."""
COUNTS = ("components", "agglomerative", "hdbscan", *LEFT)
"""Whole numbers, but for a control's mean over its draws."""

"""What is measured of a set of particles: names, units, ends, and what chance gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["COUNTS", "LEADING", "OF_THE_PATH", "QUANTITIES", "Quantity"]


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
    "components": Quantity("components at cosine > .95", "cluster"),
    "concentration": Quantity("mean cosine with the nearest other token", low=-1.0, high=1.0),
    "coinciding": Quantity("pairs at cosine > .999", "share", high=1.0),
    "energy": Quantity("interaction energy"),
    "rank_residual": Quantity("relative rank residual", high=1.0),
    "composite_residual": Quantity("rank residual, composite norm"),
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
    "straightness": Quantity("straightness of the path through all layers", high=1.0),
}
"""By the name of the variable and the row's key."""

OF_THE_PATH = ("straightness",)
LEADING = ("mean_cosine", "order_parameter")
"""What is drawn, and has the ends of its draws in rows."""
COUNTS = ("components", "tokens", "sinks")
"""Whole numbers, but for a control's mean over its draws."""

"""Presets: settings that are handy to begin with. They are no part of the theory, and none follows."""

from __future__ import annotations

import torch
from torch import Tensor

from probes.dynamics.flow import Law
from probes.dynamics.sphere import generator, unit
from workbench.errors import SettingError

__all__ = ["coupling_schedule", "mean_field_init"]


def mean_field_init(*shape: int, pull: float, seed: int = 0) -> Tensor:
    """Preset, not theory: [..., n, d] unit vectors of random directions plus `pull` times a common one.

    The mean cosine is about pull^2 / (1 + pull^2) in high dimensions.
    """
    random = generator(seed)
    own = unit(torch.randn(shape, generator=random, dtype=torch.float64))
    common = unit(torch.randn((*shape[:-2], 1, shape[-1]), generator=random, dtype=torch.float64))
    return unit(own + pull * common)


def coupling_schedule(first: Law, last: Law, time: float) -> Law:
    """Preset, not theory: a law that goes linearly from one to the other over `time`, then stays.

    Raises:
        SettingError: no time.
    """
    if time <= 0:
        raise SettingError(f"a schedule over a time of {time}: expected more than 0")

    def law(t: float, x: Tensor) -> Tensor:
        share = min(max(t / time, 0.0), 1.0)
        return (1 - share) * first(t, x) + share * last(t, x)

    return law

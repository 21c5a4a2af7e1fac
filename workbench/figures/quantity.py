"""Quantities of a reading as colours: where the values come from and where the scale ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import xarray as xr
from xarray import ufuncs

from workbench.figures.scale import Scale

__all__ = ["Quantity", "exp", "from_zero", "unit_interval", "up_to_ln2", "up_to_zero", "whole"]

Ends = Callable[[float, float], tuple[float, float]]
"""From the least and the largest value to the ends of the scale."""


@dataclass(frozen=True)
class Quantity:
    """One way to colour cells.

    `values` takes a reading to an array with dims layer and position: of the quantity itself, or
    of its base-10 logarithm where it is `logarithmic`. `reverse` gives the least value most colour.
    """

    label: str
    unit: str
    hue: str
    values: Callable[[xr.Dataset], xr.DataArray]
    ends: Ends
    logarithmic: bool = False
    reverse: bool = False

    def number(self, value: float) -> str:
        """A value of the cells as a person writes the quantity."""
        return f"{round(10**value if self.logarithmic else value, 4):.4g}"

    def scale(self, values: xr.DataArray) -> Scale:
        """The scale over these values, which are those of the whole reading: pages compare."""
        low, high = self.ends(float(values.min()), float(values.max()))
        powers = range(round(low), round(high) + 1) if self.logarithmic else ()
        ticks = {float(power): f"{10.0**power:,g}" for power in powers}
        return Scale(self.label, self.unit, self.hue, low, high, ticks, self.reverse)


def exp(logarithms: xr.DataArray) -> xr.DataArray:
    """Probabilities from log-probabilities in nat."""
    found: xr.DataArray = ufuncs.exp(logarithms)
    return found.assign_attrs(unit="probability")


def unit_interval(low: float, high: float) -> tuple[float, float]:
    """From 0 to 1, whatever the values."""
    return 0.0, 1.0


def up_to_zero(low: float, high: float) -> tuple[float, float]:
    """From the whole number below the least value to 0: log-probabilities."""
    return math.floor(low), 0.0


def up_to_ln2(low: float, high: float) -> tuple[float, float]:
    """From 0 to ln 2, the largest Jensen-Shannon divergence in nat."""
    return 0.0, math.log(2)


def whole(low: float, high: float) -> tuple[float, float]:
    """From the whole number below the least value to the one above the largest."""
    return math.floor(low), max(math.floor(low) + 1.0, math.ceil(high))


def from_zero(low: float, high: float) -> tuple[float, float]:
    """From 0 to the whole number above the largest value, 1 at least."""
    return 0.0, max(1.0, math.ceil(high))

"""Panels of the layer axis: what instruments bring to be read side by side, one row a layer.

Every panel holds named-axis arrays with the dim `layer`; `workbench.figures.layers` draws a row of
them with the layer on one shared vertical axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import xarray as xr

from workbench.figures.scale import Scale

__all__ = ["Bars", "Heat", "Line", "Lines", "Panel", "Words"]


@dataclass(frozen=True)
class Line:
    """One quantity along the layers, dim (layer).

    Attributes:
        values: the quantity.
        low, high: ends of its interval, or of a control's spread.
        control: whether it is what the others are to be held against (a twin with random weights,
            shuffled tokens): drawn thin and grey.
    """

    values: xr.DataArray
    low: xr.DataArray | None = None
    high: xr.DataArray | None = None
    control: bool = False


@dataclass(frozen=True)
class Lines:
    """Quantities of one unit along the layers.

    Attributes:
        name: what links and settings call the panel; short, and distinct within its instrument.
        title: what it shows, with the unit.
        lines: by what each is.
        ends: of the horizontal axis; what the values need where None. Values beyond them are written at
            the end that they leave by.
    """

    name: str
    title: str
    lines: Mapping[str, Line]
    ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class Words:
    """Tokens in coloured cells, dims (layer, column): the best few of each layer.

    Attributes:
        tokens: text of each cell; it is made visible and escaped when it is drawn.
        values: what colours the cells.
    """

    name: str
    title: str
    tokens: xr.DataArray
    values: xr.DataArray
    scale: Scale


@dataclass(frozen=True)
class Heat:
    """A small heat map, dims (layer, other), without text; `other` is often the position.

    Attributes:
        values: coordinates of `other` are whole numbers or texts; where it is `position`, a click
            selects the position too.
    """

    name: str
    title: str
    values: xr.DataArray
    scale: Scale


@dataclass(frozen=True)
class Bars:
    """Signed amounts of each layer, dims (layer, part), stacked; `part` names them."""

    name: str
    title: str
    values: xr.DataArray


Panel = Lines | Words | Heat | Bars

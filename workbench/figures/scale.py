"""How a quantity becomes a colour: its name, its unit, its hue and its ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.figures.theme import Theme

__all__ = ["Scale", "colour_bar"]


@dataclass(frozen=True)
class Scale:
    """A colour scale for one quantity.

    `unit` is empty of a pure number; `low` and `high` are the ends in the unit of the values; `ticks`
    replaces the numbers on the colour bar, which a logarithmic quantity needs; `reverse` gives the low
    end the full colour.
    """

    title: str
    unit: str
    hue: str
    low: float
    high: float
    ticks: Mapping[float, str] = field(default_factory=dict)
    reverse: bool = False

    def colours(self, theme: Theme) -> list[list[float | str]]:
        """Plotly's colour scale of this quantity in this look."""
        stops = theme.hues[self.hue]
        ordered = stops[::-1] if self.reverse else stops
        return [[index / (len(stops) - 1), stop] for index, stop in enumerate(ordered)]


def colour_bar(scale: Scale, theme: Theme) -> dict[str, Any]:
    """The colour bar of a scale, its title carrying the unit."""
    bar: dict[str, Any] = {
        "title": {"text": ", ".join(filter(None, (scale.title, scale.unit))), "side": "right"},
        "thickness": 10,
        "outlinewidth": 0,
        "ticks": "outside",
        "ticklen": 3,
        "tickcolor": theme.muted,
        "tickfont": {"color": theme.ink},
    }
    if scale.ticks:
        bar |= {"tickvals": list(scale.ticks), "ticktext": list(scale.ticks.values())}
    return bar

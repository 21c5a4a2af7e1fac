"""What a tab of the Inspector is: its parts, its wires, and what it exports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dash
import plotly.graph_objects as go

from app.bench import Bench
from app.state import Shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Linked", "Tab"]


@dataclass(frozen=True)
class Linked:
    """A control whose value the address carries: its component's id, and the values it takes."""

    id: str
    values: Collection[str]


@dataclass(frozen=True)
class Tab:
    """One tab.

    Attributes:
        name: as links and the registry call it; for an instrument's tab, the instrument's name.
        title: what is written on it.
        layout: its components, without figures: those are drawn in callbacks.
        register: its callbacks.
        figure: the figure that it exports, or None where there is none.
        frame: the table that it exports, or None where there is none.
        linked: controls whose values the address carries, by their names there.
    """

    name: str
    title: str
    layout: Callable[[], Any]
    register: Callable[[dash.Dash, Bench], None]
    figure: Callable[[Bench, Shown], go.Figure | None]
    frame: Callable[[Bench, Shown], pd.DataFrame | None]
    linked: Mapping[str, Linked] = field(default_factory=dict)

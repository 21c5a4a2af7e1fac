"""What a simulation is: settings that run without a model, and give rows and a figure.

Found by name through the entry points of the group `workbench.simulations`, as instruments are, so that
a worker process can run one that this room knows nothing of.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.errors import SettingError
from workbench.instrument import Citation, Instrument, find

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from workbench.results import Result

__all__ = ["Pace", "Simulation", "find_simulation", "maker", "simulations", "unpaced"]

GROUP = "workbench.simulations"

Pace = Callable[[int, int], None]
"""To be called after each step with how many are done, and of how many; raises `Cancelled` to stop."""


def unpaced(done: int, total: int) -> None:
    """The pace of who does not want to know."""


class Simulation(ABC):
    """Base of simulations: frozen dataclasses of their settings.

    Attributes:
        name: as entry points and stored results call it.
        title: as the app calls it.
        citation: the source of its law.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    citation: ClassVar[Citation]

    def settings(self) -> dict[str, Any]:
        """The settings as plain data."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def source(cls, settings: Mapping[str, Any]) -> Citation:
        """The source of what was done with these settings."""
        return cls.citation

    @abstractmethod
    def result(self, pace: Pace = unpaced) -> Result:
        """Run, and what came of it in the form that can be stored.

        Raises:
            Cancelled: `pace` raised it.
            WorkbenchError: a setting that only the run finds out.
        """

    @classmethod
    @abstractmethod
    def figure(cls, data: xr.Dataset, *, theme: str = "light", **options: Any) -> go.Figure:
        """The figure of a result's dataset."""

    @classmethod
    @abstractmethod
    def rows(cls, data: xr.Dataset) -> Iterable[dict[str, Any]]:
        """Tidy rows of a result's dataset."""


def simulations() -> list[str]:
    """Names of the installed simulations, in the order that their package lists them."""
    return list(dict.fromkeys(entry.name for entry in entry_points(group=GROUP)))


def find_simulation(name: str) -> type[Simulation]:
    """The installed simulation called `name`.

    Raises:
        SettingError: none is called so.
    """
    for entry in entry_points(group=GROUP, name=name):
        found: type[Simulation] = entry.load()
        return found
    raise SettingError(f"unknown simulation {name!r}: expected one of {', '.join(simulations())}")


def maker(name: str) -> type[Instrument] | type[Simulation]:
    """The instrument or simulation that a result names, which draws and cites it.

    Raises:
        SettingError: neither is called so.
    """
    return find_simulation(name) if name in simulations() else find(name)

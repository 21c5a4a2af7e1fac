"""The simulations that the page offers, their settings as texts, and the links that name them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

import numpy as np

from workbench import SettingError
from workbench.settings import assigned, settings_of, text_of
from workbench.simulation import Simulation, find_simulation, simulations

__all__ = ["configured", "defaults", "kinds", "link_of", "read_link", "texts_of"]

EXPERIMENT = "experiment"  # in a link
NUMBERS = 2**26  # of pairs of tokens and of states at once: a step of them takes about a second
STEPS = 10**7


def kinds() -> Mapping[str, type[Simulation]]:
    """The installed simulations by name."""
    return _kinds(tuple(sys.path))


@functools.cache
def _kinds(path: tuple[str, ...]) -> Mapping[str, type[Simulation]]:
    """Kept for each search path: to look through all packages takes a while."""
    return {name: find_simulation(name) for name in simulations()}


def defaults(name: str) -> dict[str, str]:
    """The settings that a simulation starts with, as texts."""
    return {setting.name: setting.default for setting in settings_of(kinds()[name])}


def texts_of(simulation: Simulation) -> dict[str, str]:
    """All settings of a simulation, as texts."""
    return {name: text_of(value) for name, value in simulation.settings().items()}


def configured(name: str, texts: Mapping[str, str]) -> Simulation:
    """The simulation with `texts` over its defaults, as `workbench simulate` reads them.

    Raises:
        SettingError: there is no such simulation or setting, it refuses a value, or it is one of a size
            that a page does not take.
    """
    if name not in kinds():
        raise SettingError(f"no experiment {name[:40]!r}: expected one of {', '.join(kinds())}")
    title = f"simulate {name}"
    made = assigned(kinds()[name], title, [f"{k}={text}" for k, text in texts.items()])
    _require_size(made)
    return made


def _require_size(simulation: Simulation) -> None:
    """Refuse what would fill the memory, or not end, whoever sends the link."""
    asked = simulation.settings()
    if not {"betas", "seeds", "tokens", "d", "time", "step"} <= asked.keys():
        return
    systems = np.size(asked["betas"]) * asked["seeds"]
    numbers = systems * asked["tokens"] * (asked["tokens"] + asked["d"])
    if numbers > NUMBERS:
        raise SettingError(
            f"betas x seeds x tokens x (tokens + d) is {numbers:,}: expected at most {NUMBERS:,} on a "
            "page; use `workbench simulate` for more"
        )
    if asked["time"] > STEPS * asked["step"]:
        raise SettingError(
            f"time {asked['time']:g} in steps of {asked['step']:g}: expected at most {STEPS:,} steps on "
            "a page; use `workbench simulate` for more"
        )


def link_of(simulation: Simulation) -> str:
    """The part of the address that names a simulation: its settings, where they are not the default."""
    usual = defaults(simulation.name)
    own = {k: text for k, text in texts_of(simulation).items() if text != usual[k]}
    return urlencode({EXPERIMENT: simulation.name, **own})


def read_link(search: str) -> tuple[str, dict[str, str]]:
    """The simulation that an address names, "" where it names none, and the settings that it states."""
    fields = dict(parse_qsl(search.removeprefix("?"), keep_blank_values=True))
    return fields.pop(EXPERIMENT, ""), fields

"""What an experiment saw as a result with named axes, and back."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from probes.dynamics.simulated import Simulated
from workbench.assembly import PACKAGES
from workbench.results import Result
from workbench.simulation import find_simulation

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["restored", "stored"]

SEEN, CURVE = ("time", "beta", "seed"), ("beta",)
COUNTED = {"clusters": "cluster"}


def stored(found: Simulated) -> Result:
    """Axes time, beta and seed of what was seen; beta alone of the theory's numbers, which are times."""
    import xarray as xr

    seen = {k: (SEEN, v, {"unit": COUNTED.get(k, "1")}) for k, v in found.seen.items()}
    curves = {k: (CURVE, v, {"unit": "time"}) for k, v in found.curves.items()}
    coords = {"time": found.times, "beta": found.betas, "seed": np.arange(found.of.seeds)}
    return Result.of(
        xr.Dataset({**seen, **curves}, coords),
        instrument=found.of.name,
        provenance={
            "settings": found.settings,
            "versions": {name: version(name) for name in PACKAGES}
            | {"python": platform.python_version()},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def restored(data: xr.Dataset) -> Simulated:
    """What `stored` was given, from its dataset.

    Raises:
        SettingError: it is of no simulation that is installed, or of other settings than it takes.
    """
    result = Result(data)
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in result.provenance["settings"].items()
    }
    numbers = {str(name): (one.dims, one.values) for name, one in data.data_vars.items()}
    return Simulated(
        find_simulation(result.instrument)(**settings),  # type: ignore[arg-type]
        data["time"].values,
        data["beta"].values,
        {name: values for name, (dims, values) in numbers.items() if dims == SEEN},
        {name: values for name, (dims, values) in numbers.items() if dims == CURVE},
    )

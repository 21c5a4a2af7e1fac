"""What of a causal trace concerns one prompt or one place, and what its settings say in words."""

from __future__ import annotations

import numpy as np
import xarray as xr

from workbench.figures import reading
from workbench.figures.reading import chosen
from workbench.report.intervals import student

__all__ = ["SITES", "half_width", "of_place", "of_prompt", "window_of"]

SITES = {
    "resid_post": "state",
    "mlp_out": "MLP",
    "attn_out": "attention",
    "severed_mlp": "state, MLP severed",
    "severed_attn": "state, attention severed",
}


def of_prompt(data: xr.Dataset, prompt: str | int | None = None) -> xr.Dataset:
    """One prompt, the first one where None: the dim position in the place of place.

    Raises:
        ResultError: the result has no such prompt.
    """
    return reading.of_prompt(data, prompt).swap_dims(place="position")


def of_place(
    data: xr.Dataset, prompt: str | int | None = None, position: int | None = None
) -> xr.Dataset:
    """One token of a prompt, its last one that was measured where None.

    Raises:
        ResultError: the result has no such prompt or position.
    """
    one = of_prompt(data, prompt)
    positions = one["position"].values
    wanted = positions[-1] if position is None else chosen("position", position, positions)
    return one.sel(position=wanted)


def half_width(data: xr.Dataset) -> xr.DataArray:
    """Half of the 95% interval of an effect over the samples of noise (Student's); NaN for one."""
    factor = student(data.sizes["sample"])
    return data["stderr"] * (np.nan if factor is None else factor)


def window_of(width: int) -> str:
    """The blocks that a window around block l covers, as the reference's code has it.

    >>> window_of(10), window_of(5)
    ('[l−5, l+4]', '[l−2, l+2]')
    """
    return f"[l−{width // 2}, l+{width - width // 2 - 1}]"

"""One prompt's particles out of a result, and what its numbers cannot say."""

from __future__ import annotations

import numpy as np
import xarray as xr

from probes.particles.dimension import FEWEST_POINTS
from probes.particles.quantities import HISTOGRAMS, QUANTITIES
from workbench.figures.reading import chosen

__all__ = ["TOO_FEW", "counted", "ends", "of_prompt", "over_draws", "reason"]

TOO_FEW = f"no intrinsic dimension of fewer than {FEWEST_POINTS} different tokens"


def of_prompt(data: xr.Dataset, prompt: str | int | None = None) -> xr.Dataset:
    """Dims view, draw, layer, and the coordinate `prompt`; the first prompt where None.

    Raises:
        ResultError: there is no such prompt.
    """
    known = list(dict.fromkeys(data["prompt"].values.tolist()))
    name = chosen("prompt", prompt, np.array(known))
    numbers = data[[name for name in (*QUANTITIES, *HISTOGRAMS) if name in data]]
    return numbers.isel(prompt=known.index(name)).drop_vars("prompt", errors="ignore")


def over_draws(values: xr.DataArray) -> xr.DataArray:
    """The mean over the draws that there are; NaN of none."""
    count = values.notnull().sum("draw")
    return (values.fillna(0).sum("draw") / count).where(count > 0).assign_attrs(values.attrs)


def ends(values: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The least and the largest of the draws; NaN of none."""
    there, none = values.notnull(), values.notnull().any("draw")
    low = values.where(there, np.inf).min("draw").where(none)
    return low, values.where(there, -np.inf).max("draw").where(none)


def reason(tokens: float) -> str | None:
    """Why numbers of so many tokens do not exist; None where they do."""
    if tokens >= 2:
        return None
    return f"{tokens:.0f} token counts, and pairs take 2" if tokens == 1 else "no token counts"


def counted(own: xr.Dataset) -> str:
    """How many tokens count, and why there are no numbers where there are none."""
    tokens, sinks, zeros = (over_draws(own[name]) for name in ("tokens", "sinks", "zeros"))
    least, most = int(tokens.min()), int(tokens.max())
    if why := reason(most):
        return f"no numbers: {why}"
    counted = f"{most} tokens" if least == most else f"{least} to {most} tokens, by layer"
    left, none = int(sinks.max()), int(zeros.max())
    lost = f", up to {none} for having no direction" if none else ""
    return f"{counted}; {f'up to {left}' if left else 'none'} left out by norm{lost}"

"""Sharpness of attention on the layer axis, at one query."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from workbench.figures.generic import at_place
from workbench.figures.panels import Heat, Line, Lines, Panel
from workbench.figures.scale import Scale

__all__ = ["facts", "panels"]


def panels(
    data: xr.Dataset, *, prompt: str | int | None = None, position: int | None = None
) -> Sequence[Panel]:
    """Entropy share by head; entropy beside uniform attention and the twin; beta and sink by head.

    The band is from the least to the greatest head.
    """
    here = at_place(data, prompt, position)
    share, beta = Scale("H / ln n", "share", "blue", 0, 1), "effective_beta"
    found: list[Panel] = [_heat(here, "entropy_share", "entropy share by head", share)]
    if here["entropy"].notnull().any():
        found.append(_entropy(here))
    if beta in here and here[beta].notnull().any():
        end = float(here[beta].max()) or 1.0
        found.append(
            _heat(here, beta, "beta by head", Scale("effective beta", "", "purple", 0, end))
        )
    weight = Scale("first token", "weight", "orange", 0, 1)
    found.append(_heat(here, "sink", "weight on first token", weight))
    return [panel for panel in found if not isinstance(panel, Heat) or panel.values.notnull().any()]


def _heat(here: xr.Dataset, name: str, title: str, scale: Scale) -> Heat:
    return Heat(name, title, here[name].transpose("layer", "head"), scale)


def _entropy(here: xr.Dataset) -> Lines:
    lines = {
        "mean of heads": _of_heads(here["entropy"]),
        "uniform": Line(here["entropy_uniform"], control=True),
    }
    if "entropy_twin" in here:
        lines["untrained twin"] = Line(here["entropy_twin"].mean("head"), control=True)
    high = max(1.0, math.ceil(float(here["entropy_uniform"].max())))
    return Lines("entropy", "entropy, nat", lines, (-0.03 * high, 1.03 * high))


def _of_heads(values: xr.DataArray) -> Line:
    return Line(values.mean("head"), values.min("head"), values.max("head"))


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None, position: int | None = None
) -> list[tuple[str, str]]:
    """Heads that stand out at one query of one layer."""
    here = at_place(data, prompt, position)
    if layer not in here["layer"]:
        return []
    here = here.sel(layer=layer)
    found = [("visible keys", f"{int(here['visible_keys'])}")]
    for label, best in (("sharpest", np.nanargmin), ("most spread", np.nanargmax)):
        if here["entropy"].notnull().any():
            found.append((f"{label} head", _said(here, int(best(here["entropy"].values)))))
    if here["sink"].notnull().any():
        head = int(here["sink"].argmax("head"))
        weight, chance = float(here["sink"][head]), float(here["sink_uniform"])
        said = f"head {int(here['head'][head])}: {weight:.3g}, uniform {chance:.3g}"
        found.append(("most on the first token", said))
    return found


def _said(here: xr.Dataset, head: int) -> str:
    one = here.isel(head=head)
    said = (
        f"head {int(one['head'])}: {float(one['entropy']):.3g} nat, "
        f"{float(one['entropy_share']):.0%} of ln n"
    )
    beta = float(one["effective_beta"]) if "effective_beta" in one else math.nan
    return said if math.isnan(beta) else f"{said}, beta {beta:.3g}"

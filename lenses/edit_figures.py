"""Edits on the layer axis: what each does to the prompt, its paraphrases and its neighbours."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures import layer_panels, themed
from workbench.figures.generic import at_place
from workbench.figures.panels import Line, Lines
from workbench.figures.reading import chosen
from workbench.report.intervals import mean_interval

__all__ = ["NAMES", "facts", "figure", "panels"]

NAMES = {
    "imprint_shift": "imprint and shift",
    "gradient": "gradient step",
    "random": "random direction",
}
SHOWN = {"prompt": "target", "paraphrase": "target", "neighbour": "own"}
TITLES = {
    "prompt": "log p(target), prompt, nat",
    "paraphrase": "log p(target), paraphrases, nat",
    "neighbour": "log p(own answer), neighbours, nat",
}


def figure(
    data: xr.Dataset,
    *,
    theme: str = "light",
    prompt: str | int | None = None,
    selected: tuple[int, int] | None = None,
    eta: float | None = None,
) -> go.Figure:
    """The panels over all prompts, with Student's intervals, or of one prompt.

    Raises:
        ResultError: the result has no such prompt or eta.
    """
    if prompt is not None:
        data = data.isel(place=[_index(data, prompt)])
    shown = _panels(data, eta)
    n = data.sizes["place"]
    of = f"Edits with eta {chosen('eta', eta, data['eta'].values):g}" + (
        f", {n} prompts" if n > 1 else ""
    )
    return layer_panels({of: shown}, themed(theme), layer=None if selected is None else selected[0])


def panels(data: xr.Dataset, *, prompt: str | int | None = None) -> list[Lines]:
    """The panels of one prompt, at the first eta.

    Raises:
        ResultError: the result has no such prompt.
    """
    return _panels(data.isel(place=[_index(data, prompt)]), None)


def _index(data: xr.Dataset, prompt: str | int | None) -> int:
    names = data["prompt"].values
    return int(np.flatnonzero(names == chosen("prompt", prompt, names))[0])


def _panels(data: xr.Dataset, eta: float | None) -> list[Lines]:
    data = data.sel(eta=chosen("eta", eta, data["eta"].values))
    found = []
    for kind, who in SHOWN.items():
        own = data.isel(case=np.flatnonzero(data["kind"].values == kind))
        after = own[f"{who}_logprob_after"].mean("case")
        if after.notnull().any():
            before = (
                own[f"{who}_logprob_before"]
                .mean("case")
                .broadcast_like(after.isel(edit=0, drop=True))
            )
            lines = {NAMES[m]: _line(after.sel(edit=m), m == "random") for m in NAMES}
            found.append(Lines(kind, TITLES[kind], {**lines, "before": _line(before, True)}))
    return found


def _line(values: xr.DataArray, control: bool) -> Line:
    """The mean over the prompts at each layer, with Student's interval where there are several."""
    summaries = [
        mean_interval(column[np.isfinite(column)], (-math.inf, 0.0))
        for column in values.transpose("layer", "place").values
    ]
    layer = {"layer": values["layer"]}
    middle, low, high = (
        xr.DataArray([getattr(one, part) for one in summaries], layer, attrs=values.attrs)
        for part in ("value", "low", "high")
    )
    if summaries[0].low is None:
        return Line(middle, control=control)
    return Line(middle, low, high, control)


def facts(
    data: xr.Dataset, *, layer: int, prompt: str | int | None = None
) -> list[tuple[str, str]]:
    """What each edit at this layer does to the prompt, and how many neighbours keep their top token."""
    if layer not in data["layer"].values:
        return []
    here = at_place(data, prompt).sel(layer=layer)
    several = data.sizes["eta"] > 1
    return [
        (
            NAMES[method] + (f", eta {eta:g}" if several else ""),
            _said(here.sel(eta=eta, edit=method)),
        )
        for eta in here["eta"].values.tolist()
        for method in NAMES
    ]


def _said(here: xr.Dataset) -> str:
    own = here.isel(case=0)
    before, after = (math.exp(own[f"target_logprob_{when}"]) for when in ("before", "after"))
    ranks = " → ".join(f"{int(own[f'target_rank_{when}']):,}" for when in ("before", "after"))
    said = f"p(target) {before:.3g} → {after:.3g}, rank {ranks}"
    near = here.isel(case=np.flatnonzero(here["kind"].values == "neighbour"))
    there = near["top_id_before"].values >= 0
    kept = int((near["top_id_before"] == near["top_id_after"]).values[there].sum())
    return f"{said}; {kept} of {there.sum()} neighbours kept" if there.any() else said

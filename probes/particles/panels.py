"""Particles on the layer axis: order beside its controls, clusters, and steps, of the whole prompt."""

from __future__ import annotations

import xarray as xr

from probes.particles.quantities import QUANTITIES
from probes.particles.reading import ends, of_prompt, over_draws
from probes.particles.views import CENTRED
from workbench.figures.panels import Line, Lines, Panel

__all__ = ["CONTROLS", "HEADINGS", "panels"]

CONTROLS = {"random": "untrained twin", "shuffled": "shuffled tokens"}
HEADINGS = {"raw": "states as they are", "centred": "less the layer's mean over other text"}
CLUSTERS = ("participation_ratio", "vendi", "components")


def panels(data: xr.Dataset, *, prompt: str | int | None = None) -> list[Panel]:
    """Mean cosine, raw and centred, with the controls' draws as bands; clusters; steps.

    Raises:
        ResultError: the result has no such prompt.
    """
    one = of_prompt(data, prompt)
    known = one["view"].values.tolist()
    shown = [view for view in ("raw", "centred") if view in known]
    clusters = one.sel(view=shown[-1])
    found: list[Panel] = [_order(one, view) for view in shown]
    return [*found, _clusters(clusters, shown[-1]), _steps(one.sel(view=shown[0]))]


def _order(one: xr.Dataset, view: str) -> Lines:
    values, lines = one["mean_cosine"], {}
    lines["this prompt"] = Line(over_draws(values.sel(view=view)))
    for control, name in CONTROLS.items():
        drawn = control if view == "raw" else CENTRED[control]
        if drawn in one["view"].values:
            those = values.sel(view=drawn)
            lines[name] = Line(over_draws(those), *ends(those), control=True)
    return Lines(f"cosine-{view}", f"mean cosine, {view}", lines)


def _clusters(one: xr.Dataset, view: str) -> Lines:
    tokens = float(over_draws(one["tokens"]).max())
    lines = {
        QUANTITIES[name].title: Line(values)
        for name in CLUSTERS
        if (values := over_draws(one[name])).notnull().any()
    }
    return Lines("clusters", f"clusters of {tokens:.0f} tokens, {view}", lines)


def _steps(one: xr.Dataset) -> Lines:
    """Without the first block's, which is measured in embeddings and dwarfs the others."""
    values = over_draws(one["step"])
    return Lines("step", "step |dx| / |x|", {"step": Line(values.where(values["layer"] > 1))})

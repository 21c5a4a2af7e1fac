"""The logit lens on the layer axis: where it reads what, one position's tokens, and their odds."""

from __future__ import annotations

import math

import xarray as xr

from lenses.logit.figures import COLOURS, probabilities
from lenses.logit.grid import STATES
from workbench.figures.generic import at_place
from workbench.figures.panels import Heat, Line, Lines, Panel, Words
from workbench.figures.quantity import exp
from workbench.figures.reading import reading, words

__all__ = ["best_tokens", "panels"]

TOKENS = 3


def panels(
    data: xr.Dataset,
    *,
    prompt: str | int | None = None,
    position: int | None = None,
    site: str | None = None,
) -> list[Panel]:
    """Probability by position; the best tokens of one; its probabilities, entropy and KL.

    Entropy and KL are left out for what a branch adds (see `LogitLens`).

    Raises:
        ResultError: the result has no such prompt or position.
    """
    known = data["site"].values.tolist()
    site = site if site in known else known[0]
    place = at_place(data, prompt, position, site)
    found: list[Panel] = [_overview(reading(data, prompt, site)), best_tokens(place), _odds(place)]
    return [*found, _spread(place)] if site in STATES else found


def _overview(one: xr.Dataset) -> Heat:
    colour = COLOURS["probability"]
    values = colour.values(one).transpose("layer", "position")
    return Heat("positions", "p(top-1) by position", values, colour.scale(values))


def best_tokens(place: xr.Dataset) -> Words:
    """The best tokens of each layer at one place (see `at_place`), coloured by probability."""
    best = place.isel(k=slice(TOKENS))
    chances = exp(best["top_logprob"]).transpose("layer", "k")
    ids = best["top_id"].transpose("layer", "k")
    tokens = chances.copy(data=words(place, ids))
    return Words("tokens", "best tokens", tokens, chances, COLOURS["probability"].scale(chances))


def _odds(place: xr.Dataset) -> Lines:
    lines = {name: Line(values) for name, values in probabilities(place).items()}
    return Lines("probability", "probability", lines, (-0.03, 1.03))


def _spread(place: xr.Dataset) -> Lines:
    lines = {"entropy": Line(place["entropy"]), "KL(final || layer)": Line(place["kl"])}
    shown = {name: line for name, line in lines.items() if line.values.notnull().any()}
    high = max(1, math.ceil(max(float(line.values.max()) for line in shown.values())))
    return Lines("spread", "entropy and KL, nat", shown, (-0.03 * high, 1.03 * high))

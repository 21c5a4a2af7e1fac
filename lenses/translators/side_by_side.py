"""Several lenses on the same cells: each one's tokens by layer, and their curves in one panel each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lenses.logit.reading import heading
from workbench.errors import ResultError
from workbench.results import Result, require_one_model

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from workbench.figures.panels import Lines, Panel

__all__ = ["side_by_side"]

SITE = "resid_post"
LETTERS = 40  # of a prompt that an error repeats
CURVES = {"kl": "KL(final || layer), nat", "entropy": "entropy, nat"}


def side_by_side(
    results: Sequence[Result],
    *,
    prompt: str | int | None = None,
    position: int | None = None,
    layer: int | None = None,
    theme: str = "light",
) -> go.Figure:
    """Logit-lens results read with different lenses, on one layer axis.

    One panel a lens with its best tokens at each layer, then one panel each for KL(final || layer),
    entropy and, where the prompt has a target, its probability, with a line for each lens.

    Args:
        results: `LogitLens` results of one model and the same prompts, with a lens each.
        prompt, position: the place to read; the first prompt and its last position where None.
        layer: the layer to mark.
        theme: "light" or "dark".

    Raises:
        ResultError: no results, results of another instrument or of different models or tokens, or two
            read with the same lens.

    >>> lenses = ["logit", tuned, jacobian]  # doctest: +SKIP
    >>> side_by_side([LogitLens(lens=lens)(model, prompt) for lens in lenses])  # doctest: +SKIP
    """
    from lenses.logit.panels import best_tokens
    from workbench.figures import layer_panels, themed
    from workbench.figures.generic import at_place

    _require_comparable(results)
    places = {
        _title(result.data): at_place(result.data, prompt, position, SITE) for result in results
    }
    if len(places) < len(results):
        raise ResultError(f"expected results of a lens each: got {', '.join(_titles(results))}")
    _require_same_token(places)
    groups: dict[str, Sequence[Panel]] = {
        title: [best_tokens(place)] for title, place in places.items()
    }
    groups["Compared"] = _curves(_short(places))
    at = int(next(iter(places.values()))["position"])
    return layer_panels(groups, themed(theme), layer=layer, position=at)


def _short(places: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The places by the kind of their lens, which a legend has room for, where the kinds differ."""
    kinds = {title.rpartition(" lens")[0] + " lens": place for title, place in places.items()}
    return kinds if len(kinds) == len(places) else dict(places)


def _curves(places: Mapping[str, xr.Dataset]) -> list[Lines]:
    import math

    from workbench.figures.panels import Line, Lines
    from workbench.figures.quantity import exp

    panels = []
    for name, title in CURVES.items():
        lines = {lens: Line(place[name]) for lens, place in places.items()}
        if any(line.values.notnull().any() for line in lines.values()):
            high = max(1, math.ceil(max(float(line.values.max()) for line in lines.values())))
            panels.append(Lines(name, title, lines, (-0.03 * high, 1.03 * high)))
    if all(place["target_id"] >= 0 for place in places.values()):
        chances = {lens: Line(exp(place["target_logprob"])) for lens, place in places.items()}
        panels.append(Lines("target", "p(target)", chances, (-0.03, 1.03)))
    return panels


def _title(data: xr.Dataset) -> str:
    return heading(data) or "Logit lens"


def _titles(results: Sequence[Result]) -> list[str]:
    return [_title(result.data) for result in results]


def _require_comparable(results: Sequence[Result]) -> None:
    if not results:
        raise ResultError("no results: expected logit-lens results, one for each lens")
    for result in results:
        if result.instrument != "logit_lens" or SITE not in result.data["site"].values:
            raise ResultError(f"{result!r}: expected a logit-lens result of {SITE}")
    require_one_model(results)


def _require_same_token(places: Mapping[str, xr.Dataset]) -> None:
    found = {_cell(place) for place in places.values()}
    if len({cell[:2] for cell in found}) > 1:
        said = ", ".join(sorted({words for *_, words in found}))
        raise ResultError(f"results of different prompts share no cells: {said}")


def _cell(place: xr.Dataset) -> tuple[tuple[int, ...], int, str]:
    """Token ids of the prompt and the position in it, and both in words."""
    from workbench.figures import shorten

    asked = {one["name"]: one for one in json.loads(place.attrs["provenance"])["prompts"]}
    own, at = asked[place["prompt"].item()], int(place["position"])
    words = f"{place['token'].item()!r} at position {at} of {shorten(own['text'], LETTERS)!r}"
    return tuple(own["ids"]), at, words

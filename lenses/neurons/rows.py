"""Tidy rows of neurons, of four kinds, all with the same keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lenses.neurons.state import key_of
from workbench.figures.reading import words
from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]

KEYS = (
    "layer",
    "unit",
    "kind",
    "end",
    "k",
    "token",
    "score",
    "prompt",
    "position",
    "activation",
    "window",
    "low",
    "high",
    "tokens",
    "mean",
    "positive",
    "written",
)


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows neuron by neuron, all with the keys above; None where a kind has no such thing.

    "summary": tokens, mean, low, high, positive, written. "value": end, k, token, score. "context": k,
    prompt (None where the result does not list its prompts), position, token, activation, window =
    [[token, activation], ...]. "histogram": low, high, tokens, of each bin that holds any.
    """
    made_of = json.loads(data.attrs["provenance"])
    layer = made_of["settings"]["layer"]
    names = {key_of(prompt["ids"]): prompt["name"] for prompt in made_of["prompts"]}
    for unit in range(data.sizes["unit"]):
        one = data.isel(unit=unit)
        shared = {"layer": layer, "unit": int(one["neuron"])}
        for row in (_summary(one), *_values(one), *_contexts(one, names), *_histogram(one)):
            yield {**dict.fromkeys(KEYS), **shared, **row}


def _summary(one: xr.Dataset) -> dict[str, Any]:
    names = ("tokens", "mean", "low", "high", "positive", "written")
    return {"kind": "summary"} | {name: plain(one[name].values[()]) for name in names}


def _values(one: xr.Dataset) -> Iterator[dict[str, Any]]:
    tokens, scores = words(one, one["value_id"]), one["value_score"].values
    for e, end in enumerate(one["end"].values.tolist()):
        for k, (token, score) in enumerate(zip(tokens[e], scores[e].tolist(), strict=True)):
            yield {"kind": "value", "end": end, "k": k + 1, "token": token, "score": score}


def _contexts(one: xr.Dataset, names: Mapping[int, Any]) -> Iterator[dict[str, Any]]:
    tokens, ids = words(one, one["context_token"]), one["context_token"].values
    nearby, middle = one["context_activation"].values, one.sizes["offset"] // 2
    for k, position in enumerate(one["context_position"].values.tolist()):
        if position < 0:
            continue
        pairs = zip(tokens[k], nearby[k], ids[k], strict=True)
        yield {
            "kind": "context",
            "k": k + 1,
            "prompt": names.get(int(one["context_key"][k])),
            "position": position,
            "token": tokens[k][middle],
            "activation": float(one["context_value"][k]),
            "window": [[token, plain(value)] for token, value, i in pairs if i >= 0],
        }


def _histogram(one: xr.Dataset) -> Iterator[dict[str, Any]]:
    ends = zip(one["bin_low"].values, one["bin_high"].values, one["count"].values, strict=True)
    for low, high, count in ends:
        if count:
            yield {
                "kind": "histogram",
                "low": plain(low),
                "high": plain(high),
                "tokens": int(count),
            }

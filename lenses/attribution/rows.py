"""Tidy rows of a direct-attribution result: one a term."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]

AXES = ("component", "layer", "head", "k")
TERMS: Mapping[str, str] = {
    "contribution": "",
    "norm_bias": "norm_bias",
    "unembed_bias": "unembed_bias",
    "head_contribution": "head",
    "attn_bias": "attn_bias",
    "source_contribution": "source",
    "source_rest": "source_rest",
    "neuron_contribution": "neuron",
    "neuron_rest": "neuron_rest",
    "mlp_bias": "mlp_bias",
}
"""The variables that are terms, and what a row calls their component; "" where an axis says it."""

NUMBERED = {"source": "source_position", "neuron": "neuron_unit"}
EMPTY = dict.fromkeys(("component", "layer", "head", "unit", "source", "source_token"))


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, component, layer, head, unit, source, ..., contribution.

    The embedding, what the branches add, norm_bias and unembed_bias add up to the logit, but for the
    residual; heads and attn_bias to attn_out; sources and source_rest to their head; neurons,
    neuron_rest and mlp_bias to mlp_out. A term that does not exist has no row.
    """
    levels = [_Level.of(data, name) for name in TERMS if name in data]
    texts = _texts(data)
    plain = {name: data[name].values.tolist() for name in ("prompt", "position", "token")}
    said = {name: data[name].values.tolist() for name in ("logit", "residual")}
    given = data["target_given"].values.tolist()
    ends = {name: data[f"{name}_id"].values.tolist() for name in ("target", "foil")}
    for place in range(data.sizes["place"]):
        last: dict[str, Any] = {name: texts.get(ids[place]) for name, ids in ends.items()}
        last |= {name: _finite(values[place]) for name, values in said.items()}
        last["target_given"] = bool(given[place])
        for level in levels:
            for term, value in level.terms(place, texts):
                yield {
                    "prompt": plain["prompt"][place],
                    **term,
                    "position": plain["position"][place],
                    "token": plain["token"][place],
                    "contribution": _finite(value),
                    **last,
                }


@dataclass(frozen=True)
class _Level:
    """The terms of one variable, place first, and the axes that name them."""

    component: str
    axes: Mapping[str, list[Any]]
    values: npt.NDArray[Any]
    numbers: npt.NDArray[Any] | None
    tokens: npt.NDArray[Any] | None

    @classmethod
    def of(cls, data: xr.Dataset, name: str) -> _Level:
        axes = [axis for axis in AXES if axis in data[name].dims]

        def array(variable: str) -> npt.NDArray[Any]:
            found: npt.NDArray[Any] = data[variable].transpose("place", *axes).values
            return found

        component = TERMS[name]
        return cls(
            component,
            {axis: data[axis].values.tolist() for axis in axes},
            array(name),
            array(NUMBERED[component]) if component in NUMBERED else None,
            array("source_token_id") if component == "source" else None,
        )

    def terms(self, place: int, texts: Mapping[int, str]) -> Iterator[tuple[dict[str, Any], float]]:
        """What names each term of a place, and the term."""
        for cell in map(tuple, np.argwhere(~np.isnan(self.values[place])).tolist()):
            at = {name: axis[i] for (name, axis), i in zip(self.axes.items(), cell, strict=True)}
            at.pop("k", None)
            term = EMPTY | {"component": self.component} | at
            if self.numbers is not None:
                kind = "source" if self.component == "source" else "unit"
                term[kind] = int(self.numbers[place][cell])
            if self.tokens is not None:
                term["source_token"] = texts[int(self.tokens[place][cell])]
            yield term, float(self.values[place][cell])


def _texts(data: xr.Dataset) -> dict[int, str]:
    return dict(
        zip(data["token_id"].values.tolist(), data["vocabulary"].values.tolist(), strict=True)
    )


def _finite(value: float) -> float | None:
    """JSON knows no other numbers."""
    return value if math.isfinite(value) else None

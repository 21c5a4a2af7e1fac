"""Tidy rows of particles: one a prompt, layer and view."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from probes.particles.quantities import COUNTS, LEADING, OF_THE_PATH, QUANTITIES
from probes.particles.reading import TOO_FEW, ends, of_prompt, over_draws, reason
from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, layer, view, then each quantity, draws, low and high ends, note.

    Of a control a number is the mean over its draws; `mean_cosine_low` and `_high` (and those of the
    order parameter) are the least and the largest of several. `note` says why numbers are None.
    """
    for prompt in dict.fromkeys(data["prompt"].values.tolist()):
        yield from _of_prompt(prompt, of_prompt(data, prompt))


def _of_prompt(prompt: str | int, one: xr.Dataset) -> Iterator[dict[str, Any]]:
    columns = {name: over_draws(one[name]).values for name in QUANTITIES}
    drawn = one["tokens"].notnull().sum("draw")
    for name in LEADING:
        for end, values in zip(("low", "high"), ends(one[name]), strict=True):
            columns[f"{name}_{end}"] = values.where(drawn > 1).values
    for v, view in enumerate(one["view"].values.tolist()):
        for i, layer in enumerate(one["layer"].values.tolist()):
            if draws := int(drawn[v, i]):
                numbers = {
                    name: _number(name, values[v] if name in OF_THE_PATH else values[v, i])
                    for name, values in columns.items()
                }
                note = reason(float(columns["tokens"][v, i])) or _lacking(numbers)
                where = {"prompt": prompt, "layer": layer, "view": view}
                yield where | numbers | {"draws": draws, "note": note}


def _lacking(numbers: dict[str, float | int | None]) -> str | None:
    """That the intrinsic dimension does not exist, where it was asked for as the Vendi score was."""
    asked = numbers["vendi"] is not None and numbers["intrinsic_dimension"] is None
    return TOO_FEW if asked else None


def _number(name: str, value: Any) -> float | int | None:
    number: float | None = plain(value)
    whole = name in COUNTS and number is not None and number.is_integer()
    return int(number) if whole and number is not None else number

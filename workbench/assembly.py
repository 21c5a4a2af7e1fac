"""From the parts that batches leave to one result in the order of the prompts."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.errors import SettingError
from workbench.instrument import Instrument, Measured
from workbench.models.batch import Places
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.results import Result

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Parts", "assemble"]

PACKAGES = ("mechanistic-interpretability-workbench", "torch", "transformers")
TOKEN_ID = "token id"

Variable = tuple[tuple[str, ...], NDArray[Any], str]


class Parts:
    """What one instrument has made of the batches so far, on the CPU."""

    def __init__(self) -> None:
        self.places: list[NDArray[np.int64]] = []  # rows (prompt, position, token)
        self.prompts: list[NDArray[np.int64]] = []
        self.variables: list[dict[str, Variable]] = []

    def add(self, indices: Sequence[int], places: Places, measured: Measured) -> None:
        """Keep one batch, whose row r is the prompt of index `indices[r]`."""
        rows = np.asarray(indices, dtype=np.int64)
        row, position, token = (_numpy(t) for t in (places.row, places.position, places.token))
        self.places.append(np.stack([rows[row], position, token]))
        self.prompts.append(rows)
        self.variables.append({k: (v.dims, _numpy(v.values), v.unit) for k, v in measured.items()})

    def extend(self, other: Parts) -> None:
        """Append the parts of `other`."""
        self.places += other.places
        self.prompts += other.prompts
        self.variables += other.variables

    def joined(self) -> tuple[NDArray[np.int64], dict[str, Variable]]:
        """Places [3, N] and variables, sorted by prompt and position."""
        places = np.concatenate(self.places, axis=1)
        orders = {
            "place": np.lexsort((places[1], places[0])),
            "prompt": np.concatenate(self.prompts).argsort(),
        }
        variables = {}
        for name, (dims, _, unit) in self.variables[0].items():
            axis, along = _stacked_axis(name, dims)
            values = np.concatenate(_alike([part[name][1] for part in self.variables], axis), axis)
            variables[name] = (dims, values.take(orders[along], axis=axis), unit)
        return places[:, orders["place"]], variables


def _stacked_axis(name: str, dims: tuple[str, ...]) -> tuple[int, str]:
    for along in ("place", "prompt"):
        if along in dims:
            return dims.index(along), along
    raise SettingError(
        f"variable {name!r} has axes {dims}: expected 'place' or 'prompt' among them"
    )


def _alike(parts: list[NDArray[Any]], axis: int) -> list[NDArray[Any]]:
    """Parts whose axes but `axis` are as long as the longest: keys go as far as a batch's prompts.

    NaN (-1 for integers) where a part has nothing.
    """
    longest = np.max([part.shape for part in parts], axis=0)
    longest[axis] = 0
    return [_filled(part, longest - part.shape) for part in parts]


def _filled(part: NDArray[Any], missing: NDArray[np.int64]) -> NDArray[Any]:
    empty = np.nan if part.dtype.kind == "f" else -1
    after = [(0, max(0, count)) for count in missing.tolist()]
    return np.pad(part, after, constant_values=empty) if any(map(any, after)) else part


def _numpy(values: Tensor) -> NDArray[Any]:
    """On the CPU, float32 at least, integers as int64."""
    if values.is_floating_point():
        values = values.to(torch.promote_types(values.dtype, torch.float32))
    else:
        values = values.to(torch.int64)
    array: NDArray[Any] = values.cpu().numpy()
    return array


def assemble(
    instrument: Instrument,
    model: Model,
    names: Sequence[str] | Sequence[int],
    encoded: Sequence[EncodedPrompt],
    parts: Parts,
    set_level: Measured,
) -> Result:
    """One result from the parts of every batch, or from what a set-level instrument finished.

    `names` are those of the prompts, in the order of `encoded`.
    """
    import xarray as xr

    variables: dict[str, Variable] = {
        k: (v.dims, _numpy(v.values), v.unit) for k, v in set_level.items()
    }
    coords: dict[str, Any] = dict(instrument.coords(model))
    if parts.variables:
        places, joined = parts.joined()
        variables |= joined
        coords |= _place_coords(places, model, names)
    data = xr.Dataset(
        {name: (dims, values, {"unit": unit}) for name, (dims, values, unit) in variables.items()},
        {k: v for k, v in coords.items() if k in _dims(variables) or isinstance(v, tuple)},
    )
    return Result.of(
        _with_vocabulary(data, model),
        instrument=instrument.name,
        provenance={
            "remarks": [*instrument.remarks(model), *instrument.remarks_of(encoded)],
            "settings": instrument.settings(),
            "model": model.provenance(),
            "prompts": [_prompt(name, e) for name, e in zip(names, encoded, strict=True)],
            "versions": {name: version(name) for name in PACKAGES}
            | {"python": platform.python_version()},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def _dims(variables: Mapping[str, Variable]) -> set[str]:
    return {dim for dims, _, _ in variables.values() for dim in dims} | {"place"}


def _place_coords(
    places: NDArray[np.int64], model: Model, names: Sequence[str] | Sequence[int]
) -> dict[str, Any]:
    prompt, position, token = places
    return {
        "prompt": ("place", np.asarray(names)[prompt]),
        "position": ("place", position),
        "token": ("place", np.array([model.tokens.text(int(t)) for t in token], dtype=object)),
    }


def _with_vocabulary(data: xr.Dataset, model: Model) -> xr.Dataset:
    """Add the text of every token id that the result speaks of, so that it can be read alone."""
    ids = [v.values.ravel() for v in data.data_vars.values() if v.attrs["unit"] == TOKEN_ID]
    if not ids:
        return data
    used = np.unique(np.concatenate(ids))
    used = used[used >= 0]
    texts = np.array([model.tokens.text(int(i)) for i in used], dtype=object)
    data = data.assign_coords(token_id=used)
    data["vocabulary"] = ("token_id", texts, {"unit": "text"})
    return data


def _prompt(name: object, encoded: EncodedPrompt) -> dict[str, Any]:
    return {
        "name": name,
        "text": encoded.text,
        "ids": list(encoded.ids),
        "target": list(encoded.answer) or encoded.target,
        "foil": encoded.foil,
        "fields": _fields(encoded),
    }


def _fields(encoded: EncodedPrompt) -> dict[str, Any]:
    """What the prompt's line says besides its text, as it was given."""
    prompt = encoded.prompt
    given = {"target": prompt.target, "foil": prompt.foil, "group": prompt.group, **prompt.extra}
    return {name: value for name, value in given.items() if value is not None}

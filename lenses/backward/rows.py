"""Tidy rows of a backward-lens result: one a prompt, map, layer and position."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from lenses.backward.maps import WRITE

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]

FIRST = ("x_norm", "delta_norm", "share", "gradient_norm")
RANKED = ("target_score", "target_rank", "foil_score", "foil_rank")
REST = ("rest_norm", "rest_rank", "skip_cosine")
CONTROLS = {"random target": "random_target", "twin": "twin"}


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, map, layer, position, token, x_norm, delta_norm, share, imprint, shift, ...

    imprint, shift and rest are [[token, score], ...], the first for maps that read the residual
    stream and the others for those that write to it; None at positions that were not read in the
    vocabulary. Each control has its rank, rest_rank and table in columns of its own; sigma_1, sigma_2
    and so on are the singular values of the prompt's gradient, the same at all its positions.
    """
    columns = _Columns.of(data)
    for prompt in dict.fromkeys(columns.prompts):
        places = [i for i, name in enumerate(columns.prompts) if name == prompt]
        for m, name in enumerate(data["map"].values.tolist()):
            for i, layer in enumerate(data["layer"].values.tolist()):
                for place in places:
                    yield columns.row((m, i, place), name, layer, name in WRITE)


@dataclass(frozen=True)
class _Columns:
    """The dataset as plain arrays."""

    prompts: list[Any]
    positions: list[int]
    tokens: list[str]
    variants: list[str]
    numbers: Mapping[str, npt.NDArray[Any]]
    texts: Mapping[int, str]

    @classmethod
    def of(cls, data: xr.Dataset) -> _Columns:
        texts = zip(data.token_id.values.tolist(), data.vocabulary.values.tolist(), strict=True)
        return cls(
            prompts=data.prompt.values.tolist(),
            positions=data.position.values.tolist(),
            tokens=data.token.values.tolist(),
            variants=data["variant"].values.tolist(),
            numbers={str(name): values.values for name, values in data.data_vars.items()},
            texts=dict(texts),
        )

    def row(
        self, cell: tuple[int, int, int], name: str, layer: int, writes: bool
    ) -> dict[str, Any]:
        """The row of one (map, layer, place)."""
        place, table = cell[2], self._table("table", 0, cell)
        return {
            "prompt": self.prompts[place],
            "map": name,
            "layer": layer,
            "position": self.positions[place],
            "token": self.tokens[place],
            **{key: self._number(key, 0, cell) for key in FIRST},
            "imprint": None if writes else table,
            "shift": table if writes else None,
            "target": self._aimed(0, place),
            "loss": float(self.numbers["loss"][0, place]),
            **{key: self._number(key, 0, cell) for key in RANKED},
            "rest": self._table("rest", 0, cell),
            **{key: self._number(key, 0, cell) for key in REST},
            **self._controls(cell),
            **self._spectrum(cell),
        }

    def _controls(self, cell: tuple[int, int, int]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for variant, key in CONTROLS.items():
            if variant not in self.variants:
                continue
            v = self.variants.index(variant)
            found |= {
                f"{key}_rank": self._number("target_rank", v, cell),
                f"{key}_rest_rank": self._number("rest_rank", v, cell),
                f"{key}_table": self._table("table", v, cell),
            }
            if variant == "random target":
                found["random_target"] = self._aimed(v, cell[2])
        return found

    def _spectrum(self, cell: tuple[int, int, int]) -> dict[str, float | None]:
        values = self.numbers["singular_value"][0][cell].tolist()
        known = (value if math.isfinite(value) else None for value in values)
        return {f"sigma_{number}": value for number, value in enumerate(known, 1)}

    def _aimed(self, variant: int, place: int) -> str:
        return self.texts[int(self.numbers["aimed_id"][variant, place])]

    def _table(self, name: str, variant: int, cell: tuple[int, int, int]) -> list[Any] | None:
        ids = self.numbers[f"{name}_id"][variant][cell].tolist()
        if ids[0] < 0:
            return None
        scores = self.numbers[f"{name}_score"][variant][cell].tolist()
        return [[self.texts[i], score] for i, score in zip(ids, scores, strict=True)]

    def _number(self, name: str, variant: int, cell: tuple[int, int, int]) -> Any:
        value = float(self.numbers[name][variant][cell])
        if not math.isfinite(value):
            return None
        return int(value) if name.endswith("_rank") else value

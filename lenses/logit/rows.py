"""Tidy rows of a logit-lens result: one a prompt, site, layer and position."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from lenses.logit.reading import LOGIT, heading

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]

BEFORE_TOP = ("entropy", "kl", "js")
AFTER_TOP = ("target_logprob", "target_rank", "foil_logprob", "foil_rank", "norm")
NUMBERS = BEFORE_TOP + AFTER_TOP


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, site, layer, position, token, entropy, kl, js, top, ...

    `top` is [[token, log-probability], ...]; a number that does not exist, or is infinite, is None; ranks are
    whole numbers. Rows go prompt by prompt, then site, layer and position.
    """
    columns = _Columns.of(data)
    for place in _prompt_blocks(columns.prompts):
        for s, site in enumerate(data.site.values.tolist()):
            for i, layer in enumerate(data.layer.values.tolist()):
                for p in place:
                    if columns.top_id[s, i, p, 0] >= 0:
                        yield columns.row((s, i, p), site, layer)


def _prompt_blocks(prompts: list[Any]) -> Iterator[range]:
    start = 0
    for end in range(1, len(prompts) + 1):
        if end == len(prompts) or prompts[end] != prompts[start]:
            yield range(start, end)
            start = end


@dataclass(frozen=True)
class _Columns:
    """The dataset as plain arrays: looking a cell up in a dataset takes longer than its row."""

    prompts: list[str] | list[int]
    positions: list[int]
    tokens: list[str]
    numbers: Mapping[str, npt.NDArray[Any]]
    settling: npt.NDArray[Any]
    top_id: npt.NDArray[Any]
    top_logprob: npt.NDArray[Any]
    texts: Mapping[int, str]
    lens: str

    @classmethod
    def of(cls, data: xr.Dataset) -> _Columns:
        texts = zip(data.token_id.values.tolist(), data.vocabulary.values.tolist(), strict=True)
        return cls(
            prompts=data.prompt.values.tolist(),
            positions=data.position.values.tolist(),
            tokens=data.token.values.tolist(),
            numbers={name: data[name].values for name in NUMBERS},
            settling=data.settling_layer.values,
            top_id=data.top_id.values,
            top_logprob=data.top_logprob.values,
            texts=dict(texts),
            lens=heading(data) or LOGIT,
        )

    def row(self, cell: tuple[int, int, int], site: str, layer: int) -> dict[str, Any]:
        """The row of one (site, layer, place)."""
        place = cell[2]
        settled = int(self.settling[cell[0], place])
        logprobs = [_finite(value) for value in self.top_logprob[cell].tolist()]
        tokens = [self.texts[token] for token in self.top_id[cell].tolist()]
        return {
            "prompt": self.prompts[place],
            "site": site,
            "layer": layer,
            "position": self.positions[place],
            "token": self.tokens[place],
            **{name: self._number(name, cell) for name in BEFORE_TOP},
            "top": [list(pair) for pair in zip(tokens, logprobs, strict=True)],
            "top_logprob": logprobs[0],
            **{name: self._number(name, cell) for name in AFTER_TOP},
            "settling_layer": settled if settled >= 0 else None,
            "lens": self.lens,
        }

    def _number(self, name: str, cell: tuple[int, int, int]) -> float | int | None:
        value = _finite(float(self.numbers[name][cell]))
        return int(value) if value is not None and name.endswith("_rank") else value


def _finite(value: float) -> float | None:
    """JSON knows no other numbers; an infinite KL stays in the dataset."""
    return value if math.isfinite(value) else None

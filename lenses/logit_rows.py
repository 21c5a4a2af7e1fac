"""Tidy rows of a logit-lens result: one a prompt, site, layer and position."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

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
    texts = dict(zip(data.token_id.values.tolist(), data.vocabulary.values.tolist(), strict=True))
    columns = {name: data[name].values for name in (*NUMBERS, "top_id", "top_logprob")}
    for place in _prompt_blocks(data.prompt.values.tolist()):
        for s, site in enumerate(data.site.values.tolist()):
            for i, layer in enumerate(data.layer.values.tolist()):
                for p in place:
                    if columns["top_id"][s, i, p, 0] >= 0:
                        yield _row(data, columns, texts, (s, i, p), site, layer)


def _prompt_blocks(prompts: list[Any]) -> Iterator[range]:
    start = 0
    for end in range(1, len(prompts) + 1):
        if end == len(prompts) or prompts[end] != prompts[start]:
            yield range(start, end)
            start = end


def _row(
    data: xr.Dataset,
    columns: dict[str, Any],
    texts: dict[int, str],
    cell: tuple[int, int, int],
    site: str,
    layer: int,
) -> dict[str, Any]:
    place = cell[2]
    settled = int(data.settling_layer.values[cell[0], place])
    ids, logprobs = columns["top_id"][cell].tolist(), columns["top_logprob"][cell].tolist()
    return {
        "prompt": _plain(data.prompt.values[place]),
        "site": site,
        "layer": layer,
        "position": int(data.position.values[place]),
        "token": str(data.token.values[place]),
        **{name: _number(columns, name, cell) for name in BEFORE_TOP},
        "top": [[texts[i], _finite(value)] for i, value in zip(ids, logprobs, strict=True)],
        "top_logprob": _finite(logprobs[0]),
        **{name: _number(columns, name, cell) for name in AFTER_TOP},
        "settling_layer": settled if settled >= 0 else None,
    }


def _plain(name: Any) -> str | int:
    """A prompt's id or index as plain Python."""
    return int(name) if np.issubdtype(type(name), np.integer) else str(name)


def _number(columns: dict[str, Any], name: str, cell: tuple[int, int, int]) -> float | int | None:
    value = _finite(float(columns[name][cell]))
    return int(value) if value is not None and name.endswith("_rank") else value


def _finite(value: float) -> float | None:
    """JSON knows no other numbers; an infinite KL stays in the dataset."""
    return value if math.isfinite(value) else None

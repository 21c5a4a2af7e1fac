"""One batch on the model and its twin: prompts of equal length together, put back in their places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probes.causal.pace import within
from probes.flow.measure import OF_PROMPT, Group, measured
from workbench.models.batch import Batch, Places
from workbench.models.protocol import Model

if TYPE_CHECKING:
    from probes.flow.instrument import LayerFlow

__all__ = ["viewed"]


def viewed(
    flow: LayerFlow,
    models: Mapping[str, Model],
    batch: Batch,
    places: Places,
    pace: Callable[[float], None],
) -> dict[str, Tensor]:
    """Every variable at the places, [N, views, ...]; those of a prompt are the same at all its places."""
    lengths = _by_length(batch)
    runs = [(view, rows) for view in range(len(models)) for rows in lengths]
    found: dict[tuple[int, int], dict[str, Tensor]] = {}
    for number, (view, rows) in enumerate(runs):
        group = Group.of(list(models.values())[view], [batch.prompts[row] for row in rows])
        values = measured(flow, group, within(pace, number / len(runs), 1 / len(runs)))
        for index, row in enumerate(rows):
            found[row, view] = {name: value[index] for name, value in values.items()}
    return {name: _at(name, found, places, len(models)) for name in found[0, 0]}


def _by_length(batch: Batch) -> list[list[int]]:
    rows: dict[int, list[int]] = {}
    for row, prompt in enumerate(batch.prompts):
        rows.setdefault(len(prompt), []).append(row)
    return list(rows.values())


def _at(
    name: str, found: Mapping[tuple[int, int], Mapping[str, Tensor]], places: Places, views: int
) -> Tensor:
    pairs = zip(places.row.tolist(), places.position.tolist(), strict=True)
    of_prompt = name in OF_PROMPT
    return torch.stack(
        [
            torch.stack(
                [
                    found[row, view][name] if of_prompt else found[row, view][name][position]
                    for view in range(views)
                ]
            )
            for row, position in pairs
        ]
    )

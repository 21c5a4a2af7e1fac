"""What is measured of prompts of equal length on one model, and how much of the model that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.linalg import vector_norm

from probes.causal.pace import within
from probes.flow import integrate, path
from probes.flow.exponents import log_stretches
from probes.flow.fields import Field, bracket, pushed
from probes.flow.losses import changes
from probes.flow.orders import reordered
from workbench.models.batch import Batch
from workbench.models.blocks import Blocks
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    from probes.flow.instrument import LayerFlow

__all__ = ["OF_PROMPT", "Group", "measured"]

OF_PROMPT = ("stretch", "exponents", "loss", "loss_change", "layer_loss_change", "random_change")
"""Variables of a whole prompt; the others are of a token."""

Pace = Callable[[float], None]


@dataclass(frozen=True)
class Group:
    """Prompts of equal length, and their states on one model.

    Attributes:
        states: [L + 1, rows, columns, d] after each layer 0..L.
    """

    model: Model
    batch: Batch
    states: Tensor

    @classmethod
    def of(cls, model: Model, prompts: Sequence[EncodedPrompt]) -> Group:
        """Run the prompts, one forward pass."""
        batch = model.batch(prompts)
        caught = model.capture(batch, "resid_post")
        layers = range(model.n_layers + 1)
        shape = (*batch.ids.shape, -1)
        return cls(
            model, batch, torch.stack([caught["resid_post", layer].view(shape) for layer in layers])
        )

    @property
    def layers(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Each layer 1..L with the states before and after it."""
        return ((layer, *pair) for layer, pair in enumerate(pairwise(self.states), start=1))


def measured(flow: LayerFlow, group: Group, pace: Pace) -> dict[str, Tensor]:
    """All variables of these prompts: [rows, columns, L, ...] of tokens, [rows, ...] of prompts."""
    found = _path(group)
    parts = flow.wanted
    if not parts:
        return found
    measures = {"ode": _ode, "integrated": _integrated, "bracket": _splitting}
    measures |= {"lyapunov": _lyapunov, "orders": _orders}
    with group.model.blocks(group.batch) as blocks:
        for number, part in enumerate(parts):
            done = within(pace, number / len(parts), 1 / len(parts))
            found |= measures[part](flow, group, blocks, done)
    return found


def _path(group: Group) -> dict[str, Tensor]:
    wide = group.states.to(torch.promote_types(group.states.dtype, torch.float32))
    found = {
        "step": path.step_sizes(wide),
        "turn": path.turns(wide),
        "straightness": path.straightness(wide),
    }
    return {name: values.movedim(0, -1) for name, values in found.items()}


def _field(blocks: Blocks, layer: int) -> Field:
    return lambda states: blocks.run(layer, states)[0] - states


def _ode(flow: LayerFlow, group: Group, blocks: Blocks, pace: Pace) -> dict[str, Tensor]:
    found = []
    for layer, before, _ in group.layers:
        field = _field(blocks, layer)
        found.append(integrate.defects(field, before, flow.steps, flow.limit))
        pace(layer / group.model.n_layers)
    return {"ode_defect": torch.stack(found, dim=2)}


def _integrated(flow: LayerFlow, group: Group, blocks: Blocks, pace: Pace) -> dict[str, Tensor]:
    """Row by row: the steps that an integrator takes depend on all that it is given."""
    found = []
    for layer, before, after in group.layers:
        field = _field(blocks, layer)
        exact = torch.cat(
            [integrate.integrated(field, row, flow.tolerance) for row in torch.split(before, 1)]
        )
        ends = torch.stack([after, integrate.euler(field, before, flow.limit)])
        found.append(vector_norm(ends - exact, dim=-1) / vector_norm(after - before, dim=-1))
        pace(layer / group.model.n_layers)
    block, limit = torch.stack(found, dim=-1)
    return {"integrated_defect": block, "limit_error": limit}


def _splitting(flow: LayerFlow, group: Group, blocks: Blocks, pace: Pace) -> dict[str, Tensor]:
    found = []
    for layer, before, after in group.layers:
        attention, mlp = (partial(blocks.branch, layer, part) for part in ("attention", "mlp"))
        swapped = reordered(blocks, layer, "attention_first", before) - reordered(
            blocks, layer, "mlp_first", before
        )
        both = torch.stack([bracket(attention, mlp, before), swapped])
        moved = vector_norm(after - before, dim=-1)
        found.append(torch.where(moved > 0, vector_norm(both, dim=-1) / moved, torch.nan))
        pace(layer / group.model.n_layers)
    derived, swapped = torch.stack(found, dim=-1)
    return {"bracket": derived, "swap": swapped}


def _lyapunov(flow: LayerFlow, group: Group, blocks: Blocks, pace: Pace) -> dict[str, Tensor]:
    def push(layer: int, states: Tensor, directions: Tensor) -> Tensor:
        return pushed(lambda x: blocks.run(layer, x)[0], states, directions)

    found = []
    for row in range(len(group.batch)):
        own, radial = list(group.states[:, row]), flow.directions == "all"
        found.append(log_stretches(push, own, flow.exponents, seed=flow.seed, radial=radial))
        pace((row + 1) / len(group.batch))
    stretch = torch.stack(found)
    return {"stretch": stretch, "exponents": stretch.mean(1)}


def _orders(flow: LayerFlow, group: Group, blocks: Blocks, pace: Pace) -> dict[str, Tensor]:
    return changes(group.model, group.batch, group.states, blocks, flow.seed, pace)

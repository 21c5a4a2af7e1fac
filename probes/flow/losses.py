"""What other orders of the branches do to the loss, beside a push as far in a random direction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.linalg import vector_norm

from probes.flow.orders import ORDERS, orders_of, reordered
from workbench.aim import surprisal
from workbench.models.batch import Batch
from workbench.models.blocks import Blocks
from workbench.models.protocol import Model

__all__ = ["block_runs", "changes", "loss"]

TOKENS = 2048  # whose logits are in memory at once


def loss(model: Model, states: Tensor, ids: Tensor) -> Tensor:
    """[rows] mean -log p of each token behind a prompt's first, in nat per token.

    Args:
        model: whose last step is run.
        states: [rows, columns, d] after the last block.
        ids: [n, columns] of the prompts; row r has those of r mod n.
    """
    wanted = ids.repeat(len(states) // len(ids), 1)[:, 1:]
    rows = max(1, TOKENS // ids.shape[1])
    found = []
    for part, own in zip(torch.split(states[:, :-1], rows), torch.split(wanted, rows), strict=True):
        each = surprisal(model.readout(part.flatten(0, 1)), own.flatten()[:, None])
        found.append(each.view(own.shape).mean(1))
    return torch.cat(found)


def changes(
    model: Model,
    batch: Batch,
    states: Tensor,
    blocks: Blocks,
    seed: int,
    pace: Callable[[float], None],
) -> dict[str, Tensor]:
    """Loss of the model, and by how much it is larger in other orders: in all blocks, and in one.

    Args:
        model, batch, blocks: prompts of equal length.
        states: [L + 1, rows, columns, d] of the model itself.
        seed: of the random directions.
        pace: called with the share done.

    Returns:
        loss [rows]; loss_change [rows, O]; layer_loss_change and random_change [rows, L, O], in the order
        of `orders_of`: random_change is of states pushed as far as the order moves each token's, in a
        random direction.
    """
    orders, depth = orders_of(parallel=blocks.anatomy.parallel), len(states) - 1
    own, every = loss(model, states[-1], batch.ids), []
    for order in orders:
        moved = states[0]
        for layer in range(1, depth + 1):
            moved = reordered(blocks, layer, order, moved)
        every.append(loss(model, moved, batch.ids) - own)
    source, single = torch.Generator().manual_seed(seed), []
    for layer in range(1, depth + 1):
        single.append(
            torch.stack(
                [_of_one(model, batch, states, blocks, layer, o, source) - own for o in orders], -1
            )
        )
        pace(layer / depth)
    change, control = torch.stack(single, dim=2)
    return {
        "loss": own,
        "loss_change": torch.stack(every, -1),
        "layer_loss_change": change,
        "random_change": control,
    }


def _of_one(
    model: Model,
    batch: Batch,
    states: Tensor,
    blocks: Blocks,
    layer: int,
    order: str,
    source: torch.Generator,
) -> Tensor:
    """[2, rows] the loss with one block in another order, and with a random push as far."""
    moved = reordered(blocks, layer, order, states[layer - 1])
    far = vector_norm(moved - states[layer], dim=-1, keepdim=True)
    # One draw for all rows: a prompt's numbers are the same in any batch.
    drawn = torch.randn(moved.shape[1:], generator=source, dtype=torch.float32).to(moved)
    pushed = states[layer] + far * drawn / vector_norm(drawn, dim=-1, keepdim=True)
    both = torch.cat([moved, pushed])
    for above in range(layer + 1, len(states)):
        both, _ = blocks.run(above, both)
    return loss(model, both, batch.ids).view(2, -1)


def block_runs(n_layers: int, *, parallel: bool) -> int:
    """How many blocks a prompt's tokens pass through in `changes`."""
    orders = orders_of(parallel=parallel)
    each = sum(2 if move == "both" else 1 for order in orders for move, _ in ORDERS[order])
    above = n_layers * (n_layers - 1) // 2
    return 2 * n_layers * each + 2 * len(orders) * above

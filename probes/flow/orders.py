"""A block's branches in other orders and in halves, each part an Euler step of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from workbench.models.blocks import Blocks

__all__ = ["LABELS", "ORDERS", "orders_of", "reordered"]

Move = Literal["attention", "mlp", "both", "block"]

ORDERS: Mapping[str, tuple[tuple[Move, float], ...]] = {
    "attention_first": (("attention", 1.0), ("mlp", 1.0)),
    "mlp_first": (("mlp", 1.0), ("attention", 1.0)),
    "parallel": (("both", 1.0),),
    "strang_attention": (("attention", 0.5), ("mlp", 1.0), ("attention", 0.5)),
    "strang_mlp": (("mlp", 0.5), ("attention", 1.0), ("mlp", 0.5)),
    "two_steps": (("block", 0.5), ("block", 0.5)),
}
"""What moves the state one after another, x + h f(x), and by which h.

strang_mlp is the Macaron network's order. With Euler steps as parts, none is of second order as Strang's
splitting with exact flows is.
"""

LABELS: Mapping[str, str] = {
    "attention_first": "attention, MLP",
    "mlp_first": "MLP, attention",
    "parallel": "both at once",
    "strang_attention": "½ attention, MLP, ½ attention",
    "strang_mlp": "½ MLP, attention, ½ MLP (Macaron)",
    "two_steps": "two half steps",
}


def orders_of(*, parallel: bool) -> list[str]:
    """The orders that a block of this kind does not have already."""
    own = "parallel" if parallel else "attention_first"
    return [order for order in ORDERS if order != own]


def reordered(blocks: Blocks, layer: int, order: str, states: Tensor) -> Tensor:
    """The states [rows, columns, d] after block `layer` in another order."""
    for move, share in ORDERS[order]:
        states = states + share * _moved(blocks, layer, move, states)
    return states


def _moved(blocks: Blocks, layer: int, move: Move, states: Tensor) -> Tensor:
    if move == "block":
        return blocks.run(layer, states)[0] - states
    if move == "both":
        return blocks.branch(layer, "attention", states) + blocks.branch(layer, "mlp", states)
    return blocks.branch(layer, move, states)

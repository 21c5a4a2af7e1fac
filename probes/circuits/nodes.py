"""What edges join: parts that write to the residual stream, and parts that read it.

Senders, in order: the embedding; then of each block its heads and its MLP. Receivers, in order: of each
block the queries of each head, the keys and the values of each head of keys, and the MLP; then the
logits. Heads are counted from 0, layers from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.protocol import Model
from workbench.models.weights import Weights

__all__ = ["Node", "Nodes"]

BRANCHES: tuple[Literal["attention", "mlp"], ...] = ("attention", "mlp")


@dataclass(frozen=True)
class Node:
    """A sender or a receiver.

    Attributes:
        part: embed, head, mlp; q, k, v, mlp, logits.
        layer: 0 for the embedding, L for the logits.
        head: of head, q, k and v; -1 for others.
    """

    part: str
    layer: int
    head: int = -1

    def __str__(self) -> str:
        if self.part in ("embed", "logits"):
            return self.part
        place = f"{self.layer}" if self.head < 0 else f"{self.layer}.{self.head}"
        return f"{self.part} {place}"


@dataclass(frozen=True)
class Nodes:
    """The senders and receivers of one model.

    Attributes:
        layers, heads, key_heads: how many it has.
        parallel: whether a block's MLP reads what its heads read.
    """

    layers: int
    heads: int
    key_heads: int
    parallel: bool

    @classmethod
    def of(cls, model: Model, who: str) -> Nodes:
        """The nodes of a model.

        Raises:
            UnsupportedError: its blocks cannot be split into nodes whose outputs sum to what others read.
        """
        if not model.causal or len(model.stacks) > 1:
            raise UnsupportedError(
                f"{who}: {model.name} is no causal decoder: use one, such as GPT-2"
            )
        try:
            return cls._of(model, model.weights)
        except UnsupportedError as error:
            raise UnsupportedError(f"{who}: {error}") from None

    @classmethod
    def _of(cls, model: Model, weights: Weights) -> Nodes:
        for branch in BRANCHES:
            weights.input_norm(branch, 1)
        if not weights.mlp_inputs:
            raise UnsupportedError(
                f"{model.name} sends each token to experts of its own, whose inputs are not told apart"
            )
        for name in ("q", "k", "v", "o", *weights.mlp_inputs):
            weights.map(name, 1)
        key_heads = weights.map("k", 1).weight.shape[1] // weights.d_head
        return cls(model.n_layers, model.n_heads, key_heads, weights.parallel)

    @cached_property
    def senders(self) -> list[Node]:
        """In the order of the network."""
        found = [Node("embed", 0)]
        for layer in range(1, self.layers + 1):
            found += [Node("head", layer, head) for head in range(self.heads)]
            found.append(Node("mlp", layer))
        return found

    @cached_property
    def receivers(self) -> list[Node]:
        """In the order of the network."""
        found = []
        counts = {"q": self.heads, "k": self.key_heads, "v": self.key_heads}
        for layer in range(1, self.layers + 1):
            for part, count in counts.items():
                found += [Node(part, layer, head) for head in range(count)]
            found.append(Node("mlp", layer))
        return [*found, Node("logits", self.layers)]

    def before(self, receiver: Node) -> int:
        """How many of the first senders a receiver reads."""
        if receiver.part == "logits":
            return len(self.senders)
        lower = 1 + (receiver.layer - 1) * (self.heads + 1)
        sees_heads = receiver.part == "mlp" and not self.parallel
        return lower + self.heads * sees_heads

    @cached_property
    def edges(self) -> Tensor:
        """[senders, receivers] whether there is an edge."""
        reach = torch.tensor([self.before(receiver) for receiver in self.receivers])
        return torch.arange(len(self.senders))[:, None] < reach

    def of_block(self, layer: int) -> dict[str, slice]:
        """The places of a block's receivers by part."""
        width = self.heads + 2 * self.key_heads + 1
        ends = [(layer - 1) * width]
        for count in (self.heads, self.key_heads, self.key_heads, 1):
            ends.append(ends[-1] + count)
        return {part: slice(*ends[i : i + 2]) for i, part in enumerate(("q", "k", "v", "mlp"))}

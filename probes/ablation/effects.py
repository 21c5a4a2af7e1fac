"""From the states behind ablations to losses and scores: the rest of the model, run together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from probes.ablation.cells import Behind
from probes.ablation.clean import Clean, repeated
from workbench.models.captures import Read

__all__ = ["Effects", "room_of"]

CPU_TOKENS = 2048  # above, a block takes longer for each token
CUDA_TOKENS = 32768


def room_of(clean: Clean) -> int:
    """How many tokens are run at once."""
    usual = CPU_TOKENS if clean.model.device.type == "cpu" else CUDA_TOKENS
    return min(usual, clean.model.token_limit or usual)


@dataclass
class Effects:
    """Collects ablations that end at the same layer, and runs the blocks above on them together.

    Attributes:
        shape: (layers, heads or last layers, draws).
        done: told how many ablations are done.
        score, loss: [rows, layers, heads or last layers, draws]; NaN where nothing was measured.
        block_tokens: tokens that passed through blocks so far.
    """

    clean: Clean
    shape: tuple[int, int, int]
    done: Callable[[int], None]
    block_tokens: int = 0
    score: Tensor = field(init=False)
    loss: Tensor = field(init=False)
    _waiting: dict[int, list[tuple[Behind, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        like = self.clean.score
        self.score, self.loss = (
            torch.full((len(self.clean), *self.shape), torch.nan, dtype=like.dtype)
            for _ in range(2)
        )

    def add(self, behind: Behind, draw: int) -> None:
        """Take one more, and run those of its layer if they fill the room."""
        waiting = self._waiting.setdefault(behind.layer, [])
        waiting.append((behind, draw))
        self.block_tokens += behind.block_tokens
        if (len(waiting) + 1) * self.clean.tokens > room_of(self.clean):
            self._run(behind.layer)

    def finish(self) -> None:
        """Run what is left."""
        for layer in list(self._waiting):
            self._run(layer)

    def _run(self, layer: int) -> None:
        cells = self._waiting.pop(layer)
        final = self._final(layer, torch.cat([behind.states for behind, _ in cells]))
        losses, scores = (read(final).cpu() for read in (self.clean.losses, self.clean.scored))
        for (behind, draw), loss, score in zip(cells, losses, scores, strict=True):
            self.loss[:, *behind.cell, draw] = loss
            self.score[:, *behind.cell, draw] = score
        self.done(len(cells))

    def _final(self, layer: int, states: Tensor) -> Tensor:
        """[cells, rows, width, d] after the last block."""
        clean, top = self.clean, self.clean.model.n_layers
        shape = (-1, *clean.states[0].shape)
        if layer == top:
            return states.view(shape)
        batch = repeated(clean.batch, len(states) // len(clean))
        read = Read([("resid_post", top)])
        caught = clean.model.read(batch, [read], start=(layer, states))[0]
        self.block_tokens += (top - layer) * states.shape[0] * states.shape[1]
        return caught.places.scatter(torch.zeros_like(states), caught["resid_post", top]).view(
            shape
        )

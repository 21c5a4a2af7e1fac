"""What attention could look at: for each place, the keys that it sees and those of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.models.batch import Batch, DecoderBatch, Places
from workbench.models.visible import visible_keys

__all__ = ["KINDS", "Keys"]

KINDS = ("sink", "previous", "induction", "duplicate")


@dataclass(frozen=True)
class Keys:
    """The keys of some places, by position in their prompt.

    Attributes:
        tokens: [rows, keys] ids; -1 beyond a prompt's end.
        row, position: [N] of the places.
        causal: whether a place sees only itself and what is before it.
        window: how many tokens, itself the last, a place sees; None for all that it may.
        own: whether the keys are those of the places' own prompt (not so in cross attention).
    """

    tokens: Tensor
    row: Tensor
    position: Tensor
    causal: bool
    window: int | None = None
    own: bool = True

    @classmethod
    def of(cls, batch: Batch, places: Places, *, causal: bool, cross: bool = False) -> Keys:
        """The keys of `places` of a batch; in cross attention, those of the encoder's prompts."""
        source = batch.source if isinstance(batch, DecoderBatch) and cross else batch
        source = source.padded_right()
        tokens = torch.where(source.mask.bool(), source.ids, -1)
        return cls(tokens, places.row, places.position, causal and not cross, own=not cross)

    def within(self, window: int | None) -> Keys:
        """The same in a layer of another window."""
        return replace(self, window=window)

    def __getitem__(self, part: slice) -> Keys:
        """Those of some of the places."""
        return replace(self, row=self.row[part], position=self.position[part])

    def __len__(self) -> int:
        return len(self.row)

    @property
    def ids(self) -> Tensor:
        """[N, keys] tokens of each place's keys; -1 beyond its prompt's end."""
        return self.tokens[self.row]

    @property
    def behind(self) -> Tensor:
        """[N, keys] how many tokens a key lies before its place."""
        width = self.tokens.shape[1]
        return self.position[:, None] - torch.arange(width, device=self.tokens.device)

    @property
    def visible(self) -> Tensor:
        """[N, keys] whether the mask lets a place see a key."""
        there = self.ids >= 0
        return visible_keys(there, self.position, causal=self.causal, window=self.window)

    def kinds(self) -> Mapping[str, Tensor]:
        """[N, keys] whether a visible key is of each of `KINDS`; of cross attention, sinks alone."""
        visible, behind = self.visible, self.behind
        first = torch.zeros_like(visible)
        first[:, 0] = True
        if not self.own:
            return {"sink": first & visible}
        before = torch.roll(self.tokens, 1, dims=1)
        before[:, 0] = -1
        current = self.tokens[self.row, self.position][:, None]
        earlier = visible & (behind > 0)
        return {
            "sink": first & visible,
            "previous": visible & (behind == 1),
            "induction": earlier & (before[self.row] == current),
            "duplicate": earlier & (self.ids == current),
        }

"""A padded batch of prompts, and the places in it that are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from workbench.errors import SettingError
from workbench.models.positions import Positions, resolve_positions
from workbench.models.tokens import EncodedPrompt

__all__ = ["Batch", "DecoderBatch", "Padding", "Places"]

Padding = Literal["left", "right"]


@dataclass(frozen=True)
class Places:
    """The N (prompt, position) pairs that a read takes from a batch, prompt by prompt.

    Attributes:
        row: [N] row of the batch.
        position: [N] token position in its prompt; padding is not counted.
        token: [N] id of the input token there.
        column: [N] column of the padded batch.
    """

    row: Tensor
    position: Tensor
    token: Tensor
    column: Tensor

    def __len__(self) -> int:
        return int(self.row.shape[0])

    def gather(self, padded: Tensor) -> Tensor:
        """[rows, width, ...] -> [N, ...], a copy on the places' device, wherever the block lies."""
        row, column = self.row.to(padded.device), self.column.to(padded.device)
        return padded[row, column].to(self.row.device)

    def scatter(self, padded: Tensor, values: Tensor) -> Tensor:
        """`padded` [rows, width, ...] with `values` [N, ...] written at these places, a copy."""
        row, column = self.row.to(padded.device), self.column.to(padded.device)
        return padded.index_put((row, column), values.to(padded))


@dataclass(frozen=True)
class Batch:
    """Prompts padded to one width, with the mask and position ids that make padding invisible.

    Attributes:
        prompts: the encoded prompts, one a row.
        ids, mask, position_ids: [rows, width] integers; mask is 1 on tokens and 0 on padding.
        starts: [rows] column of each prompt's first token.
    """

    prompts: tuple[EncodedPrompt, ...]
    ids: Tensor
    mask: Tensor
    position_ids: Tensor
    starts: Tensor

    @classmethod
    def collate(
        cls,
        prompts: Sequence[EncodedPrompt],
        *,
        pad_id: int = 0,
        padding: Padding = "right",
        device: torch.device | str = "cpu",
    ) -> Batch:
        """Pad `prompts` on the `padding` side to the longest of them."""
        if padding not in ("left", "right"):
            raise SettingError(f"padding {padding!r}: expected 'left' or 'right'")
        lengths = torch.tensor([len(p) for p in prompts])
        width = int(lengths.max())
        starts = width - lengths if padding == "left" else torch.zeros_like(lengths)
        columns = torch.arange(width)
        offset = columns[None, :] - starts[:, None]
        mask = (offset >= 0) & (offset < lengths[:, None])
        ids = torch.full(mask.shape, pad_id)
        ids[mask] = torch.tensor([i for p in prompts for i in p.ids])
        return cls(
            tuple(prompts),
            ids.to(device),
            mask.long().to(device),
            torch.where(mask, offset, 0).to(device),
            starts.to(device),
        )

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def device(self) -> torch.device:
        """Where its tensors lie."""
        return self.ids.device

    @cached_property
    def tokens(self) -> int:
        """How many tokens the batch holds, padding not counted."""
        return sum(len(p) for p in self.prompts)

    def padded_right(self) -> Batch:
        """The same prompts with the padding on the right."""
        if not self.padded_left:
            return self
        pad_id = int(self.ids[self.mask == 0][0])
        return Batch.collate(self.prompts, pad_id=pad_id, device=self.device)

    @cached_property
    def padded_left(self) -> bool:
        """Whether some prompt begins after the first column."""
        return bool(self.starts.any())

    @cached_property
    def attention_mask(self) -> Tensor:
        """[rows, width] what attention has to mask: padding on the left.

        In a causal model no token sees the padding to its right. Left unmasked, those places stay
        ordinary numbers; masked, a window that holds padding alone has a softmax over nothing.
        """
        return self.mask if self.padded_left else torch.ones_like(self.mask)

    def places(self, positions: Positions = "all") -> Places:
        """Resolve `positions` in every prompt of the batch."""
        found = [resolve_positions(positions, p) for p in self.prompts]
        row = torch.tensor([r for r, where in enumerate(found) for _ in where], device=self.device)
        position = torch.tensor([i for where in found for i in where], device=self.device)
        if not len(row):
            raise SettingError(f"positions {positions!r} select no token of the batch")
        column = position + self.starts[row]
        return Places(row, position, self.ids[row, column], column)

    def targets(self, role: Literal["target", "foil"]) -> Tensor:
        """[rows] target or foil ids; -1 where a prompt has none."""
        ids = [getattr(p, role) for p in self.prompts]
        return torch.tensor([-1 if i is None else i for i in ids], device=self.device)


@dataclass(frozen=True)
class DecoderBatch(Batch):
    """One start token a prompt, for the decoder of a model whose encoder reads the prompts.

    Attributes:
        source: the prompts, for the encoder.
        encoded: [rows, width, d], what the encoder makes of them, where it need not run.
    """

    source: Batch
    encoded: Tensor | None = None

    @classmethod
    def of(cls, source: Batch, start_id: int) -> DecoderBatch:
        """The decoder's batch of `source`."""
        starts = [replace(p, ids=(start_id,), spans=((0, 0),)) for p in source.prompts]
        plain = Batch.collate(starts, device=source.device)
        return cls(
            plain.prompts, plain.ids, plain.mask, plain.position_ids, plain.starts, source=source
        )

    @override
    def padded_right(self) -> DecoderBatch:
        """The same with the prompts' padding on the right, where a key's column is its position."""
        return replace(self, source=self.source.padded_right())

"""Which prompts run together: length buckets within a limit of tokens, and what a run will cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil
import torch

from workbench.errors import SettingError
from workbench.models.protocol import Model

__all__ = ["Plan", "make_plan"]

CPU_TOKENS = 4096  # keeps progress and cancel prompt on a CPU
CUDA_TOKENS = 65536
WORKING_STATES = 24  # residual-sized tensors that a block holds while it runs, generously
WASTE = 4  # a prompt joins a batch if padding it wastes less than a quarter of its row ...
SMALL_WASTE = 16  # ... or less than this many tokens


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        batches: indices of the prompts of each batch.
        tokens: tokens of all prompts.
        padded_tokens: tokens that the batches hold, padding included.
        block_tokens: tokens times the blocks that each passes through, padding included.
        peak_bytes: an estimate of the memory that the largest batch needs beside the model.
        uncounted: instruments that run the model by themselves, of which one pass alone is counted.
    """

    batches: tuple[tuple[int, ...], ...]
    tokens: int
    padded_tokens: int
    block_tokens: int
    peak_bytes: int
    uncounted: tuple[str, ...] = ()

    def __str__(self) -> str:
        padding = 1 - self.tokens / self.padded_tokens
        more = f"; not counted: what {', '.join(self.uncounted)} run beside one pass"
        return (
            f"{sum(map(len, self.batches))} prompts in {len(self.batches)} batches, {self.tokens} tokens "
            f"({padding:.0%} padding), {self.block_tokens} block-tokens, about "
            f"{self.peak_bytes / 2**20:.0f} MiB beside the model{more if self.uncounted else ''}"
        )


def make_plan(
    model: Model,
    lengths: Sequence[int],
    *,
    n_sites: int,
    last_layer: int,
    batch_size: int | None = None,
) -> Plan:
    """Group prompts of like length so that each batch fits into memory.

    Args:
        lengths: tokens of each prompt.
        n_sites: residual-sized tensors kept a token.
        last_layer: the last block that has to run.
        batch_size: the most prompts in a batch; None for what memory allows.
    """
    if batch_size is not None and batch_size < 1:
        raise SettingError(f"batch_size is {batch_size}: expected at least 1")
    token_bytes = model.d_model * model.dtype.itemsize * (n_sites + WORKING_STATES)
    limit = _token_limit(model, token_bytes)
    batches = tuple(_buckets(lengths, limit, batch_size or len(lengths)))
    sizes = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    return Plan(
        batches, sum(lengths), sum(sizes), sum(sizes) * last_layer, max(sizes) * token_bytes
    )


def _token_limit(model: Model, token_bytes: int) -> int:
    ceiling = CUDA_TOKENS if model.device.type == "cuda" else CPU_TOKENS
    limit = min(ceiling, _free_bytes(model.device) // 2 // token_bytes)
    return max(1, limit if model.token_limit is None else min(limit, model.token_limit))


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _buckets(lengths: Sequence[int], limit: int, batch_size: int) -> Iterator[tuple[int, ...]]:
    """Longest first, so that a batch that is too large shows at once."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and not _joins(lengths[index], lengths[batch[0]], len(batch), limit, batch_size):
            yield tuple(batch)
            batch = []
        batch.append(index)
    yield tuple(batch)


def _joins(length: int, width: int, rows: int, limit: int, batch_size: int) -> bool:
    waste = width - length
    near = waste <= SMALL_WASTE or waste * WASTE <= width
    return near and rows < batch_size and (rows + 1) * width <= limit

"""What a report will cost, before it is begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.instrument import Instrument
from workbench.models.protocol import Model
from workbench.passes import plan
from workbench.prompts import Prompt, Prompts
from workbench.report.reading import PromptSource, every_prompt, source_of

__all__ = ["Cost", "cost"]


@dataclass(frozen=True)
class Cost:
    """What a report will do.

    Attributes:
        prompts, shards, batches: how many.
        unfit: prompts that the model or an instrument refuses, which will be kept as errors.
        tokens: tokens of all prompts.
        block_tokens: tokens times the blocks that each passes through, padding included.
        peak_bytes: an estimate of the memory that the largest batch needs beside the model.
        uncounted: instruments that run the model by themselves, of which one pass alone is counted.
    """

    prompts: int
    shards: int = 0
    batches: int = 0
    unfit: int = 0
    tokens: int = 0
    block_tokens: int = 0
    peak_bytes: int = 0
    uncounted: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = f"; not counted: what {', '.join(self.uncounted)} run beside one pass"
        return (
            f"{self.prompts} prompts in {self.shards} shards and {self.batches} batches, {self.tokens} "
            f"tokens, {self.block_tokens} block-tokens, about {self.peak_bytes / 2**20:.0f} MiB beside "
            f"the model; {self.unfit} prompts that the model or an instrument refuses"
            f"{more if self.uncounted else ''}"
        )


def cost(
    model: Model,
    prompts: Path | Prompts | PromptSource,
    instruments: Sequence[Instrument],
    *,
    shard_size: int,
    batch_size: int | None = None,
    skip_bad: bool = False,
) -> Cost:
    """What `report` with the same arguments would do; every prompt is encoded, none is run."""
    source = source_of(prompts, skip_bad=skip_bad)
    found = Cost(source.count)
    instruments = [instrument.settled(model, every_prompt(source)) for instrument in instruments]
    for _, shard in source.shards(shard_size, lambda _: True):
        fit = [i for i, prompt in enumerate(shard) if _fits(model, prompt, instruments)]
        found = replace(found, shards=found.shards + 1, unfit=found.unfit + len(shard) - len(fit))
        if fit:
            step = plan(model, shard.subset(fit), instruments, batch_size=batch_size)
            found = replace(
                found,
                batches=found.batches + len(step.batches),
                tokens=found.tokens + step.tokens,
                block_tokens=found.block_tokens + step.block_tokens,
                peak_bytes=max(found.peak_bytes, step.peak_bytes),
                uncounted=step.uncounted,
            )
    return found


def _fits(model: Model, prompt: Prompt, instruments: Sequence[Instrument]) -> bool:
    long_targets = all(instrument.long_targets for instrument in instruments)
    try:
        encoded = model.encode(prompt, long_targets=long_targets)
        for instrument in instruments:
            instrument.accept(encoded)
    except WorkbenchError:
        return False
    return True

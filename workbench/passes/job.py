"""What a pass will do: settled instruments, encoded prompts, what is read of them, in which batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from workbench.errors import SettingError
from workbench.instrument import Driving, Instrument, Reading, SetLevel
from workbench.models.captures import Read
from workbench.models.protocol import Model
from workbench.models.sites import expand_sites
from workbench.models.tokens import EncodedPrompt
from workbench.plans import Plan, make_plan
from workbench.prompts import Prompts, PromptSet
from workbench.store.activations import Store

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """Encoded prompts, what each instrument reads of them, and the plan of their batches."""

    model: Model
    instruments: Sequence[Instrument]
    prompts: PromptSet
    encoded: Sequence[EncodedPrompt]
    reads: Mapping[int, Read]
    plan: Plan

    @classmethod
    def of(
        cls,
        model: Model,
        prompts: Prompts,
        instruments: Sequence[Instrument],
        batch_size: int | None,
    ) -> Job:
        """Prepared before any work: whatever cannot be measured is refused here."""
        chosen = PromptSet.of(prompts)
        if not instruments:
            raise SettingError("no instruments: expected at least one")
        if isinstance(model, Store):
            model.require(instruments, chosen)
        instruments = [instrument.settled(model, chosen) for instrument in instruments]
        for instrument in instruments:
            instrument.prepare(model)
        long_targets = all(instrument.long_targets for instrument in instruments)
        encoded = [model.encode(prompt, long_targets=long_targets) for prompt in chosen]
        for instrument in instruments:
            for prompt in encoded:
                instrument.accept(prompt)
        reads = {
            i: instrument.reads(model)
            for i, instrument in enumerate(instruments)
            if isinstance(instrument, Reading | SetLevel)
        }
        sites = {
            site
            for read in reads.values()
            for requests in (read.sites, read.everywhere)
            for site in expand_sites(requests, model.n_layers)
        }
        planned = make_plan(
            model,
            [len(p) for p in encoded],
            n_sites=len(sites),
            last_layer=max((s.layer for s in sites), default=model.n_layers),
            batch_size=_most(instruments, batch_size),
        )
        planned = _counted(model, instruments, encoded, planned)
        return cls(model, instruments, chosen, encoded, reads, planned)


def _counted(
    model: Model,
    instruments: Sequence[Instrument],
    encoded: Sequence[EncodedPrompt],
    planned: Plan,
) -> Plan:
    """The plan with the block-tokens of the common pass, where one is needed, and of what runs beside it."""
    driving = [it for it in instruments if isinstance(it, Driving)]
    others = [it for it in instruments if isinstance(it, Reading | SetLevel)]
    own = [(it.name, it.block_tokens(model, encoded)) for it in driving]
    uncounted = tuple(dict.fromkeys(name for name, tokens in own if tokens is None))
    common = planned.block_tokens if others or uncounted else 0
    beside = sum(it.block_tokens(model, encoded) for it in others)
    beside += sum(
        it.block_tokens_beside(model, encoded) for it in others if isinstance(it, SetLevel)
    )
    total = common + beside + sum(tokens or 0 for _, tokens in own)
    return replace(planned, block_tokens=total, uncounted=uncounted)


def _most(instruments: Sequence[Instrument], batch_size: int | None) -> int | None:
    """The most prompts in a batch: the least of what is asked and what the instruments say."""
    asked = (batch_size, *(instrument.most_prompts for instrument in instruments))
    return min((most for most in asked if most is not None), default=None)

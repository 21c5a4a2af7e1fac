"""Measuring a prompt set with many instruments, or planning it, or leaving the last step to the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

from workbench.assembly import Parts, assemble
from workbench.errors import SettingError
from workbench.instrument import Instrument, Measured, SetLevel, State
from workbench.models.batch import Padding
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.passes.batch import fits, halves, too_large
from workbench.passes.job import Job
from workbench.passes.progress import CancelFlag, Progress, Work
from workbench.plans import Plan
from workbench.prompts import Prompts, PromptSet
from workbench.results import Result
from workbench.store.activations import Store

__all__ = ["Gathered", "finished", "gather", "measure", "plan"]


def plan(
    model: Model,
    prompts: Prompts,
    instruments: Sequence[Instrument],
    *,
    batch_size: int | None = None,
) -> Plan:
    """What `measure` would do with the same arguments, without doing it."""
    return Job.of(model, prompts, instruments, batch_size).plan


@overload
def measure(
    model: Model,
    prompts: Prompts,
    instruments: Sequence[Instrument],
    *,
    batch_size: int | None = None,
    padding: Padding = "right",
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelFlag | None = None,
) -> list[Result]: ...
@overload
def measure(
    model: Store,
    prompts: Sequence[Instrument],
    *,
    batch_size: int | None = None,
    padding: Padding = "right",
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelFlag | None = None,
) -> list[Result]: ...
def measure(
    model: Any,
    prompts: Any,
    instruments: Sequence[Instrument] | None = None,
    *,
    batch_size: int | None = None,
    padding: Padding = "right",
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelFlag | None = None,
) -> list[Result]:
    """Measure `prompts` with every instrument, from one forward pass a batch.

    `measure(store, instruments)` measures the prompts of a store of activations (see `capture`)
    without their model.

    Args:
        batch_size: the most prompts in a batch; what memory allows where None. A batch that does
            not fit after all is halved, and the limit found is kept in `model.token_limit`.
        padding: side of the padding; no number depends on it, up to rounding.
        progress: called before the first and after each batch.
        cancel: looked at before each batch.

    Returns:
        One result an instrument, in their order; prompts in the order given, whatever the batches.

    Raises:
        Cancelled: `cancel` was set.
        ModelError: a single prompt does not fit into memory.
        PromptError, TargetError, SettingError, UnsupportedError: before any work.
    """
    if instruments is None:
        prompts, instruments = _stored(model), prompts
    job = Job.of(model, prompts, instruments, batch_size)
    own = [_last_tokens(job, instrument) for instrument in job.instruments]
    work = Work.begin(job, progress, own)
    return [
        _concluded(work, one, tokens, cancel)
        for one, tokens in zip(_gathered(job, work, padding, cancel), own, strict=True)
    ]


def _concluded(work: Work, one: Gathered, tokens: int, cancel: CancelFlag | None) -> Result:
    """One instrument's result; `tokens` are what it runs for its last step."""

    def pace(done: float) -> None:
        work.go_on(cancel)
        work.tell(done * tokens)

    result = one.result(pace)
    if tokens:
        work.add(tokens)
    return result


def _last_tokens(job: Job, instrument: Instrument) -> int:
    """What a set-level instrument runs after the common pass, as tokens through the whole model."""
    if not isinstance(instrument, SetLevel):
        return 0
    return instrument.block_tokens(job.model, job.encoded) // job.model.n_layers


def _stored(model: Model) -> PromptSet:
    """The prompts of a store.

    Raises:
        SettingError: a model has none of its own.
    """
    if isinstance(model, Store):
        return model.prompts
    raise SettingError("no prompts: expected measure(model, prompts, instruments)")


def gather(
    model: Model,
    prompts: Prompts,
    instruments: Sequence[Instrument],
    *,
    batch_size: int | None = None,
    padding: Padding = "right",
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelFlag | None = None,
) -> list[Gathered]:
    """Do the work of `measure`, and leave the last step to the caller, who may have other shards.

    Arguments and errors are those of `measure`.
    """
    job = Job.of(model, prompts, instruments, batch_size)
    return _gathered(job, Work.begin(job, progress), padding, cancel)


def _gathered(job: Job, work: Work, padding: Padding, cancel: CancelFlag | None) -> list[Gathered]:
    """All batches."""
    queue = list(reversed(job.plan.batches))
    while queue:
        work.go_on(cancel)
        indices = queue.pop()
        if too_large(job, indices) or not fits(job, work, indices, padding, cancel):
            queue += halves(indices)
    return [
        Gathered(it, job.model, job.prompts, job.encoded, parts, work.states.get(i))
        for i, (it, parts) in enumerate(zip(job.instruments, work.parts, strict=True))
    ]


@dataclass(frozen=True)
class Gathered:
    """What one instrument has made of a prompt set.

    Attributes:
        instrument, model, prompts, encoded: what was measured, of what.
        parts: what a reading or driving instrument has made of each batch.
        state: a set-level instrument's state, which merges with other shards'; else None.
    """

    instrument: Instrument
    model: Model
    prompts: PromptSet
    encoded: Sequence[EncodedPrompt]
    parts: Parts
    state: State | None

    def result(self, pace: Callable[[float], None] = lambda _: None) -> Result:
        """The result, of a set-level instrument over these prompts alone.

        `pace` is that of `SetLevel.conclude_paced`.
        """
        last: Measured = {}
        if isinstance(self.instrument, SetLevel) and self.state is not None:
            last = self.instrument.conclude_paced(self.state, self.model, pace)
        return assemble(
            self.instrument, self.model, self.prompts.names, self.encoded, self.parts, last
        )


def finished(instrument: SetLevel, model: Model, state: State) -> Result:
    """The result of a state that was merged from shards; its provenance names no prompts."""
    return assemble(instrument, model, (), (), Parts(), instrument.conclude(state, model))

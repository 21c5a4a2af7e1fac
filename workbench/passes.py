"""The batched pass: many instruments fed by one forward a batch.

In any batching and order the numbers are the same up to the rounding of the model's dtype: in
float32 a few 1e-6 of the size of the logits, so that ranks of tokens that nearly tie may swap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, overload

import torch

from workbench.assembly import Parts, assemble
from workbench.errors import Cancelled, ModelError, SettingError
from workbench.instrument import Driving, Instrument, Measured, Reading, SetLevel, State
from workbench.models.batch import Batch, Padding
from workbench.models.captures import Captures, Read
from workbench.models.protocol import Model
from workbench.models.sites import Site, expand_sites
from workbench.models.tokens import EncodedPrompt
from workbench.plans import Plan, make_plan
from workbench.prompts import Prompts, PromptSet
from workbench.results import Result
from workbench.store.activations import Store

__all__ = ["CancelFlag", "Gathered", "Progress", "finished", "gather", "measure", "plan"]


@dataclass(frozen=True)
class Progress:
    """How far a pass is.

    Attributes:
        done, total: tokens; of a simulation, steps.
        seconds: since it began.
    """

    done: int
    total: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before the first batch is done."""
        return self.seconds * (self.total - self.done) / self.done if self.done else None


class CancelFlag(Protocol):
    """What `cancel=` takes: a `threading.Event`, for one."""

    def is_set(self) -> bool:
        """Whether to stop before the next batch."""


@dataclass(frozen=True)
class _Job:
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
    ) -> _Job:
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


def plan(
    model: Model,
    prompts: Prompts,
    instruments: Sequence[Instrument],
    *,
    batch_size: int | None = None,
) -> Plan:
    """What `measure` would do with the same arguments, without doing it."""
    return _Job.of(model, prompts, instruments, batch_size).plan


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
    job = _Job.of(model, prompts, instruments, batch_size)
    own = [_last_tokens(job, instrument) for instrument in job.instruments]
    work = _Work.begin(job, progress, own)
    return [
        work.concluded(one, tokens, cancel)
        for one, tokens in zip(_gathered(job, work, padding, cancel), own, strict=True)
    ]


def _last_tokens(job: _Job, instrument: Instrument) -> int:
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
    job = _Job.of(model, prompts, instruments, batch_size)
    return _gathered(job, _Work.begin(job, progress), padding, cancel)


def _gathered(
    job: _Job, work: _Work, padding: Padding, cancel: CancelFlag | None
) -> list[Gathered]:
    """All batches."""
    queue = list(reversed(job.plan.batches))
    while queue:
        work.go_on(cancel)
        indices = queue.pop()
        if _too_large(job, indices) or not _fits(job, work, indices, padding, cancel):
            queue += _halves(indices)
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


@dataclass
class _Work:
    """What has been measured so far."""

    parts: list[Parts]
    states: dict[int, State]
    total: int
    report: Callable[[Progress], None]
    began: float
    done: int = 0

    @classmethod
    def begin(
        cls,
        job: _Job,
        report: Callable[[Progress], None] | None,
        last: Sequence[int] = (),
    ) -> _Work:
        """`last` are the tokens that instruments run after the batches."""
        states = {
            i: it.start(job.model)
            for i, it in enumerate(job.instruments)
            if isinstance(it, SetLevel)
        }
        parts = [Parts() for _ in job.instruments]
        total = job.plan.tokens + sum(last)
        work = cls(parts, states, total, report or (lambda _: None), time.monotonic())
        work.add(0)
        return work

    def add(self, tokens: int) -> None:
        self.done += tokens
        self.tell(0)

    def tell(self, within: float) -> None:
        """Report what is done, and `within` tokens of the batch that is being measured."""
        seconds = time.monotonic() - self.began
        self.report(Progress(self.done + int(within), self.total, seconds))

    def concluded(self, one: Gathered, tokens: int, cancel: CancelFlag | None) -> Result:
        """One instrument's result; `tokens` are what it runs for its last step."""

        def pace(done: float) -> None:
            self.go_on(cancel)
            self.tell(done * tokens)

        result = one.result(pace)
        if tokens:
            self.add(tokens)
        return result

    def go_on(self, cancel: CancelFlag | None) -> None:
        """Stop where the run was cancelled."""
        if cancel is not None and cancel.is_set():
            raise Cancelled(
                f"cancelled after {self.done} of {self.total} tokens; no result was made"
            )


def _too_large(job: _Job, indices: Sequence[int]) -> bool:
    """Whether a batch passes a limit that was found since it was planned."""
    limit = job.model.token_limit
    return limit is not None and len(indices) > 1 and _padded(job, indices) > limit


def _padded(job: _Job, indices: Sequence[int]) -> int:
    return len(indices) * max(len(job.encoded[i]) for i in indices)


def _halves(indices: Sequence[int]) -> list[tuple[int, ...]]:
    middle = (len(indices) + 1) // 2
    return [tuple(indices[middle:]), tuple(indices[:middle])]


def _fits(
    job: _Job,
    work: _Work,
    indices: Sequence[int],
    padding: Padding,
    cancel: CancelFlag | None,
) -> bool:
    """Run one batch; False, with the limit remembered, where memory did not suffice."""
    tokens = sum(len(job.encoded[i]) for i in indices)

    def pace(done: float) -> None:
        work.go_on(cancel)
        work.tell(done * tokens)

    try:
        found, states = _run(job, work.states, indices, padding, pace)
    except (RuntimeError, MemoryError) as error:
        if not _out_of_memory(error):
            raise
        if len(indices) == 1:
            length = len(job.encoded[indices[0]])
            raise ModelError(
                f"out of memory on a single prompt of {length} tokens: shorten it, read fewer positions "
                "or sites, or use a smaller dtype or a larger device"
            ) from error
    else:
        for parts, part in zip(work.parts, found, strict=True):
            parts.extend(part)
        work.states |= states
        work.add(tokens)
        return True
    job.model.token_limit = _padded(job, indices) // 2
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def _out_of_memory(error: Exception) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)


@torch.no_grad()
def _run(
    job: _Job,
    states: Mapping[int, State],
    indices: Sequence[int],
    padding: Padding,
    pace: Callable[[float], None],
) -> tuple[list[Parts], dict[int, State]]:
    """One batch: one forward for all reading and set-level instruments, then the driving ones."""
    batch = job.model.batch([job.encoded[i] for i in indices], padding)
    caught = _read(job, batch)
    found: list[Parts] = []
    new_states: dict[int, State] = {}
    for i, instrument in enumerate(job.instruments):
        part = Parts()
        if isinstance(instrument, Reading):
            measured = instrument.measure_beside(caught[i], job.model)
            part.add(indices, caught[i].places, measured)
        elif isinstance(instrument, SetLevel):
            new_states[i] = instrument.update_beside(states[i], caught[i], job.model)
        elif isinstance(instrument, Driving):
            part.add(indices, *instrument.drive_paced(job.model, batch, pace))
        found.append(part)
    return found, new_states


def _read(job: _Job, batch: Batch) -> dict[int, Captures]:
    """Each instrument's captures, from one forward; reads of the same positions share tensors."""
    groups: dict[str, tuple[Read, dict[Site, None]]] = {}
    for read in (part for whole in job.reads.values() for part in _parts(whole)):
        sites = dict.fromkeys(expand_sites(read.sites, job.model.n_layers))
        groups.setdefault(repr(read.positions), (read, {}))[1].update(sites)
    if not groups:
        return {}
    merged = [Read(tuple(sites), read.positions) for read, sites in groups.values()]
    shared = dict(zip(groups, job.model.read(batch, merged), strict=True))
    return {i: _own(shared, read, job.model) for i, read in job.reads.items()}


def _parts(read: Read) -> list[Read]:
    """What is read at its positions, and what is read at every one."""
    return [read, Read(read.everywhere)] if read.everywhere else [read]


def _own(shared: Mapping[str, Captures], read: Read, model: Model) -> Captures:
    """One read's captures, out of what all the reads of a pass have found."""
    own, *more = (_taken(shared[repr(part.positions)], part, model) for part in _parts(read))
    return replace(own, everywhere=more[0]) if more else own


def _taken(group: Captures, read: Read, model: Model) -> Captures:
    sites = expand_sites(read.sites, model.n_layers)
    return replace(group, values={site: group.values[site] for site in sites})

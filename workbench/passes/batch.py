"""One batch of a pass: a forward that all instruments share, and what happens where memory is short."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from workbench.assembly import Parts
from workbench.errors import ModelError
from workbench.instrument import Driving, Reading, SetLevel, State
from workbench.models.batch import Batch, Padding
from workbench.models.captures import Captures, Read
from workbench.models.protocol import Model
from workbench.models.sites import Site, expand_sites
from workbench.passes.job import Job
from workbench.passes.progress import CancelFlag, Work

__all__ = ["fits", "halves", "too_large"]


def too_large(job: Job, indices: Sequence[int]) -> bool:
    """Whether a batch passes a limit that was found since it was planned."""
    limit = job.model.token_limit
    return limit is not None and len(indices) > 1 and _padded(job, indices) > limit


def _padded(job: Job, indices: Sequence[int]) -> int:
    return len(indices) * max(len(job.encoded[i]) for i in indices)


def halves(indices: Sequence[int]) -> list[tuple[int, ...]]:
    """A batch's second half, then its first, which is to be run first."""
    middle = (len(indices) + 1) // 2
    return [tuple(indices[middle:]), tuple(indices[:middle])]


def fits(
    job: Job,
    work: Work,
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
    job: Job,
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


def _read(job: Job, batch: Batch) -> dict[int, Captures]:
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

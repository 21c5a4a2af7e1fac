"""`capture`: run a model over prompts once, and keep what instruments will read.

The prompts are run in shards, each a folder that appears whole; whoever is stopped or killed calls
`capture` again with the same arguments and goes on where it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from workbench.errors import Cancelled, SettingError, UnsupportedError
from workbench.instrument import Citation, Measured, Named, Reading
from workbench.models.captures import Captures, Read
from workbench.models.positions import Positions, checked_positions, resolve_positions
from workbench.models.protocol import Model
from workbench.models.sites import ATTENTION_SITES, Site, SiteRequest, expand_sites
from workbench.models.tokens import EncodedPrompt
from workbench.models.torch_engine import TorchModel
from workbench.passes import CancelFlag, Gathered, Progress, gather, plan
from workbench.prompts import Prompts, PromptSet
from workbench.store.activations import MODEL, PROMPTS, SHARDS, Store
from workbench.store.description import Description
from workbench.store.last_step import keep_last_step, require_last_step
from workbench.store.manifest import open_manifest
from workbench.store.prompt_lines import hash_lines, prompt_lines, write_lines
from workbench.store.seals import seal
from workbench.store.shards import Shards
from workbench.store.states import tensor_name, write_states

__all__ = ["capture"]

SHARD_BYTES = 2**28


@dataclass(frozen=True)
class _States(Reading):
    """The sites as they are: what a pass hands over to be written."""

    sites: tuple[Site, ...]
    positions: Positions

    name: ClassVar[str] = "stored_states"
    title: ClassVar[str] = "Stored states"
    citation: ClassVar[Citation] = Citation("", "")

    def reads(self, model: Model) -> Read:
        return Read(self.sites, self.positions)

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        return {}

    def measure(self, captures: Captures) -> Measured:
        return {
            tensor_name(site): Named(("place", "unit"), captures[site], "residual stream units")
            for site in self.sites
        }


@dataclass(frozen=True)
class _Job:
    """What is captured, checked as far as it can be before the model runs over it."""

    model: TorchModel
    prompts: PromptSet
    encoded: Sequence[EncodedPrompt]
    states: _States
    dtypes: Mapping[Site, torch.dtype]
    description: Description
    batch_size: int | None


def capture(
    model: Model,
    prompts: Prompts,
    *,
    sites: str | Sequence[SiteRequest],
    positions: Positions = "all",
    out: str | Path,
    batch_size: int | None = None,
    shard_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelFlag | None = None,
) -> Store:
    """Run `model` over `prompts` once and keep `sites` at `positions` in the folder `out`.

    Interrupted in any way, it goes on where it ended when it is called again with the same
    arguments. The folder holds safetensors and JSON alone: the states in the model's own dtype, the
    prompts as they were encoded, and the model's tokenizer, config and last step.

    Args:
        model: one that `workbench.load` gives.
        sites, positions: as an instrument reads them; see `Read`.
        out: a new or empty folder, or one that the same capture has begun.
        batch_size, progress, cancel: as for `workbench.measure`; progress counts what this call
            has to run.
        shard_size: prompts of a shard; as many as fill about 256 MiB where None.

    Raises:
        Cancelled: `cancel` was set; the shards that were finished stay.
        ResultError: `out` belongs to something else, or cannot be written.
        UnsupportedError, ModelError: the last step of such a model cannot be kept, or it does not
            have a site.
        PromptError, TargetError, SettingError: before any work.

    >>> import workbench as wb  # doctest: +SKIP
    >>> store = wb.capture(wb.load(), "Rome", sites=["resid_post"], out="acts/")  # doctest: +SKIP
    """
    job = _job(model, prompts, sites, positions, batch_size, shard_size)
    folder = Path(out)
    open_manifest(folder, job.description.manifest())
    _keep_surroundings(job, folder)
    _run(job, folder, progress or (lambda _: None), cancel)
    return Store.open(folder, device=job.model.device)


def _job(
    model: Model,
    prompts: Prompts,
    sites: str | Sequence[SiteRequest],
    positions: Positions,
    batch_size: int | None,
    shard_size: int | None,
) -> _Job:
    if not isinstance(model, TorchModel):
        raise UnsupportedError(
            f"{model.name}: engine {model.engine!r} cannot be captured: load the model with 'torch'"
        )
    chosen = PromptSet.of(prompts)
    encoded = [model.encode(prompt) for prompt in chosen]
    states = _States(_vectors(sites, model.n_layers), checked_positions(positions))
    places = [len(resolve_positions(states.positions, prompt)) for prompt in encoded]
    trial = _trial(model, chosen, encoded, places, states, batch_size)
    require_last_step(model)
    place_bytes = sum(trial[site][0].nbytes for site in states.sites)
    fitting = SHARD_BYTES * len(chosen) // (place_bytes * sum(places))
    description = Description(
        model=model.provenance(),
        d_model=model.d_model,
        vocab_size=model.vocab_size,
        sites=states.sites,
        positions=states.positions,
        prompts=hash_lines(prompt_lines(chosen, encoded)),
        n_prompts=len(chosen),
        shard_size=_checked(shard_size, max(1, fitting)),
    )
    dtypes = {site: trial[site].dtype for site in states.sites}
    return _Job(model, chosen, encoded, states, dtypes, description, batch_size)


def _vectors(sites: str | Sequence[SiteRequest], n_layers: int) -> tuple[Site, ...]:
    """The sites, refusing those that are not one vector a place."""
    expanded = expand_sites(sites, n_layers)
    for site in expanded:
        if site.name in ATTENTION_SITES:
            raise UnsupportedError(f"{site} is not stored: read it from the model itself")
    return expanded


def _trial(
    model: TorchModel,
    prompts: PromptSet,
    encoded: Sequence[EncodedPrompt],
    places: Sequence[int],
    states: _States,
    batch_size: int | None,
) -> Captures:
    """The captures of the shortest prompt that has a place: refuses what a pass would refuse."""
    placed = [number for number, count in enumerate(places) if count]
    if not placed:
        raise SettingError(f"positions {states.positions!r} select no token of any prompt")
    shortest = min(placed, key=lambda number: len(encoded[number]))
    plan(model, prompts.subset([shortest]), [states], batch_size=batch_size)
    return model.capture(model.batch([encoded[shortest]]), states.sites, states.positions)


def _checked(shard_size: int | None, fitting: int) -> int:
    if shard_size is None:
        return fitting
    if type(shard_size) is not int or shard_size < 1:
        raise SettingError(f"shard_size is {shard_size!r}: expected a whole number, at least 1")
    return shard_size


def _keep_surroundings(job: _Job, folder: Path) -> None:
    """Write what reading needs beside the states, where it is not there yet."""
    kept = Shards(folder)
    kept.sweep()
    if MODEL not in kept:
        with kept.writing(MODEL) as unfinished:
            keep_last_step(job.model, unfinished)
            seal(unfinished, job.description.fingerprint)
    if PROMPTS not in kept:
        with kept.writing(PROMPTS) as unfinished:
            write_lines(unfinished, prompt_lines(job.prompts, job.encoded))


def _run(
    job: _Job, folder: Path, progress: Callable[[Progress], None], cancel: CancelFlag | None
) -> None:
    """Run the shards that are not finished."""
    shards, keys = Shards(folder / SHARDS), job.description.keys
    shards.sweep()
    missing = [key for key in keys if key not in shards]
    tokens = [_tokens(job, key) for key in missing]
    report = _Report(progress, sum(tokens), time.monotonic())
    for number, key in enumerate(missing):
        try:
            gathered = _gather(job, key, report, cancel)
        except Cancelled:
            finished = len(keys) - len(missing) + number
            raise Cancelled(
                f"cancelled after {finished} of {len(keys)} shards, which are kept in {folder}: the same "
                "capture goes on from there"
            ) from None
        _write(job, shards, key, gathered)
        report.before += tokens[number]


def _tokens(job: _Job, key: str) -> int:
    return sum(len(job.encoded[number]) for number in job.description.numbers(key))


def _gather(job: _Job, key: str, report: _Report, cancel: CancelFlag | None) -> Gathered:
    prompts = job.prompts.subset(job.description.numbers(key))
    return gather(
        job.model,
        prompts,
        [job.states],
        batch_size=job.batch_size,
        progress=report,
        cancel=cancel,
    )[0]


def _write(job: _Job, shards: Shards, key: str, gathered: Gathered) -> None:
    places, variables = gathered.parts.joined()
    values = {
        site: torch.from_numpy(variables[tensor_name(site)][1]).to(job.dtypes[site])
        for site in job.states.sites
    }
    with shards.writing(key) as unfinished:
        write_states(unfinished, job.description.numbers(key), torch.from_numpy(places), values)
        seal(unfinished, job.description.fingerprint)


@dataclass
class _Report:
    """Turns the progress of one shard into that of them all."""

    progress: Callable[[Progress], None]
    total: int
    began: float
    before: int = 0

    def __call__(self, shard: Progress) -> None:
        if shard.done or not self.before:
            done = self.before + shard.done
            self.progress(Progress(done, self.total, time.monotonic() - self.began))

"""One job's work: what is stored is reused, the rest is measured in one pass and stored."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workbench.errors import Cancelled, WorkbenchError
from workbench.instrument import Instrument
from workbench.jobs.folder import ResultFolder
from workbench.jobs.keys import keys
from workbench.models.protocol import Model
from workbench.passes import CancelFlag, Progress, measure
from workbench.prompts import PromptSet
from workbench.results import Result

__all__ = ["Outcome", "execute", "one_line", "unexpected"]


@dataclass
class Outcome:
    """What came of a job.

    Attributes:
        results: the key of each instrument's stored result.
        reused: the instruments that were not measured again.
        refused: one line for each instrument that would not measure this, or failed at it.
        traces: tracebacks of those that failed unexpectedly.
    """

    results: dict[str, str] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    traces: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Work:
    """A model, its prompts, and how to measure them."""

    model: Model
    prompts: PromptSet
    batch_size: int | None
    progress: Callable[[Progress], None] | None
    cancel: CancelFlag | None

    def measure(self, instruments: Sequence[Instrument]) -> list[Result]:
        """All of them in one pass."""
        return measure(
            self.model,
            self.prompts,
            instruments,
            batch_size=self.batch_size,
            progress=self.progress,
            cancel=self.cancel,
        )


def execute(
    model: Model,
    prompts: PromptSet,
    instruments: Sequence[Instrument],
    kept: ResultFolder,
    *,
    batch_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: CancelFlag | None = None,
) -> Outcome:
    """Measure `prompts` with every instrument that will, and store the results in `kept`.

    An instrument that refuses this model or these prompts, or fails, does not stop the others.

    Raises:
        Cancelled: `cancel` was set.
        PromptError, TargetError: a prompt cannot be used, whatever the instrument.
    """
    long_targets = all(instrument.long_targets for instrument in instruments)
    encoded = [model.encode(prompt, long_targets=long_targets) for prompt in prompts]
    outcome = Outcome()
    key_of = keys(model, prompts, encoded, instruments)
    for name in (it.name for it in instruments if kept.holds(key_of[it.name])):
        outcome.results[name] = key_of[name]
        outcome.reused.append(name)
    missing = [it for it in instruments if it.name not in outcome.results]
    wanted = [it for one in missing for it in _willing(one, model, prompts, outcome.refused)]
    work = _Work(model, prompts, batch_size, progress, cancel)
    for name, result in _measured(work, wanted, outcome).items():
        kept.save(key_of[name], result)
        outcome.results[name] = key_of[name]
    return outcome


def one_line(error: BaseException) -> str:
    """The message of an error, on one line."""
    return " ".join(str(error).split())


def _willing(
    instrument: Instrument, model: Model, prompts: PromptSet, refused: dict[str, str]
) -> list[Instrument]:
    """The instrument, settled on the prompts, or none where it refuses them or the model."""
    try:
        settled = instrument.settled(model, prompts)  # what it refuses may depend on it
        settled.prepare(model)
    except WorkbenchError as error:
        refused[instrument.name] = one_line(error)
        return []
    return [settled]


def _measured(
    work: _Work, instruments: Sequence[Instrument], outcome: Outcome
) -> Mapping[str, Result]:
    """Results by name. Where the common pass fails, one pass each finds the instrument at fault."""
    if not instruments:
        return {}
    try:
        results = work.measure(instruments)
    except Cancelled:
        raise
    except WorkbenchError as error:
        if len(instruments) == 1:
            outcome.refused[instruments[0].name] = one_line(error)
            return {}
        return _one_by_one(work, instruments, outcome)
    except Exception:  # an instrument may be anybody's code
        if len(instruments) == 1:
            raise
        return _one_by_one(work, instruments, outcome)
    return {it.name: result for it, result in zip(instruments, results, strict=True)}


def _one_by_one(
    work: _Work, instruments: Sequence[Instrument], outcome: Outcome
) -> Mapping[str, Result]:
    found: dict[str, Result] = {}
    for instrument in instruments:
        try:
            found |= _measured(work, [instrument], outcome)
        except Cancelled:
            raise
        except Exception as error:
            outcome.refused[instrument.name] = unexpected(error)
            outcome.traces.append("".join(traceback.format_exception(error)))
    return found


def unexpected(error: Exception) -> str:
    """One line on an error that nobody expected: its kind and where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"Unexpected {type(error).__name__} in {place.name} ({Path(place.filename).name}, line "
        f"{place.lineno}); the log has the details"
    )

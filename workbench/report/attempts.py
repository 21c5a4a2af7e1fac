"""Measure what can be measured of some prompts, and say of the rest why it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from workbench.errors import Cancelled, WorkbenchError
from workbench.instrument import Instrument
from workbench.models.protocol import Model
from workbench.passes import Gathered, Progress, gather
from workbench.prompts import PromptSet

__all__ = ["Attempt", "Failure"]


@dataclass(frozen=True)
class Failure:
    """A prompt that an instrument could not measure.

    Attributes:
        prompt: its name.
        instrument: the instrument's name.
        error: why, as one line.
        line: the line of the prompt file that it stands in; None where it is of no file.
    """

    prompt: str | int
    instrument: str
    error: str
    line: int | None = None


@dataclass
class Attempt:
    """What came of measuring some prompts.

    Attributes:
        gathered: what was measured; prompts in their order for each instrument.
        failures: what could not be.
    """

    model: Model
    batch_size: int | None
    progress: Callable[[Progress], None]
    gathered: list[Gathered] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def measure(self, prompts: PromptSet, instruments: Sequence[Instrument]) -> None:
        """Measure all at once; where that fails, the parts, down to one prompt and instrument."""
        try:
            self.gathered += gather(
                self.model,
                prompts,
                instruments,
                batch_size=self.batch_size,
                progress=self.progress,
            )
        except Cancelled:
            raise
        except Exception as error:  # an instrument may be anybody's code
            if len(prompts) * len(instruments) == 1:
                self.failures.append(_failure(prompts, instruments[0], error))
            for part, those in _parts(prompts, instruments):
                self.measure(part, those)

    def of(self, instrument: Instrument) -> list[Gathered]:
        """What `instrument` has measured."""
        return [one for one in self.gathered if one.instrument.name == instrument.name]


def _failure(prompts: PromptSet, instrument: Instrument, error: Exception) -> Failure:
    """Of a set of one prompt."""
    line = None if prompts.lines is None else prompts.lines[0]
    return Failure(prompts.names[0], instrument.name, _said(error), line)


def _said(error: Exception) -> str:
    known = isinstance(error, WorkbenchError)
    said = str(error) if known else f"unexpected {type(error).__name__}: {error}"
    return " ".join(said.split())


def _parts(
    prompts: PromptSet, instruments: Sequence[Instrument]
) -> Iterator[tuple[PromptSet, Sequence[Instrument]]]:
    """Each instrument by itself first, so that one that fails slows down none of the others."""
    if len(instruments) > 1:
        for instrument in instruments:
            yield prompts, [instrument]
    elif len(prompts) > 1:
        middle = (len(prompts) + 1) // 2
        yield prompts.subset(range(middle)), instruments
        yield prompts.subset(range(middle, len(prompts))), instruments

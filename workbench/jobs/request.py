"""What is asked of a worker: a model by name, prompts, and instruments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import SettingError
from workbench.instrument import Instrument
from workbench.prompts import Prompts, PromptSet

__all__ = ["Request"]


@dataclass(frozen=True)
class Request:
    """One measurement.

    Attributes:
        model: its name at the desk.
        prompts: what `workbench.measure` accepts; a PromptSet from then on.
        instruments: installed ones, each name once.
        title: as lists of jobs show it; instruments and number of prompts where empty.
        batch_size: the most prompts in a batch; what memory allows where None.
    """

    model: str
    prompts: Prompts
    instruments: Sequence[Instrument]
    title: str = ""
    batch_size: int | None = None

    def __post_init__(self) -> None:
        prompts = PromptSet.of(self.prompts)
        object.__setattr__(self, "prompts", prompts)
        object.__setattr__(self, "instruments", tuple(self.instruments))
        names = [instrument.name for instrument in self.instruments]
        if not names:
            raise SettingError("no instruments: expected at least one")
        if len(set(names)) < len(names):
            raise SettingError(
                f"instruments {', '.join(names)}: one is named twice; ask for it in a job of its own"
            )
        if not self.title:
            plural = "" if len(prompts) == 1 else "s"
            title = f"{', '.join(names)} of {len(prompts)} prompt{plural}"
            object.__setattr__(self, "title", title)

"""What the page is about: what was asked, what is measured, and what of it is selected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from workbench import Prompt, PromptError

__all__ = ["Asked", "Pending", "Run", "Selection", "Settings", "Shown"]

GOING = ("queued", "running")
SPAN = re.compile(r"(\d{1,9}):(\d{1,9})")

Settings = Mapping[str, Mapping[str, str]]
"""Settings as texts, by instrument and name, where they are not the page's own."""


@dataclass(frozen=True)
class Asked:
    """What is to be measured: a model's name, a prompt, and the tokens to follow.

    `target` and `foil` are "" where there is none; a leading space belongs to the token. `prompts`
    is the id of the prompt set that the prompt was taken from, "" where it stands alone. `subject` is
    "start:end", the characters of the prompt's subject, and `corrupted` the text that is run in its
    place; "" where there is none.
    """

    model: str
    text: str
    target: str = ""
    foil: str = ""
    prompts: str = ""
    subject: str = ""
    corrupted: str = ""

    def prompt(self) -> Prompt:
        """The prompt for an instrument.

        Raises:
            PromptError: it is empty, or the subject is no span.
        """
        return Prompt(
            self.text,
            target=self.target or None,
            foil=self.foil or None,
            subject=_span(self.subject),
            corrupted=self.corrupted or None,
        )


def _span(subject: str) -> tuple[int, int] | None:
    if not subject:
        return None
    if not (ends := SPAN.fullmatch(subject)):
        raise PromptError(
            f"subject {subject[:30]!r} is no span of the prompt: expected start:end, in characters"
        )
    return int(ends[1]), int(ends[2])


@dataclass(frozen=True)
class Run:
    """What has been measured, as the page keeps it.

    Attributes:
        asked: the model and the prompt.
        layers: the last one; the first is 0, the embedding.
        positions: how many tokens the prompt has.
        weights: the first digits of the model's own hash.
        kept: the id under which the prompt, or its set, is kept.
        results: the key of each instrument's result (see `Bench.result`).
        refused: one line for each instrument that would not measure this.
        settings: those that were used.
        link: the part of the address that names all this.
    """

    asked: Asked
    layers: int
    positions: int
    weights: str
    kept: str
    results: Mapping[str, str]
    refused: Mapping[str, str]
    settings: Settings
    link: str = ""

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Run:
        """The run from its stored form."""
        return cls(**(stored | {"asked": Asked(**stored["asked"])}))

    def stored(self) -> dict[str, Any]:
        """The run as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Selection:
    """The one selection, which every view reads and writes.

    `prompt` is the prompt's id in the result, `site` the component.
    """

    prompt: int | str
    layer: int
    position: int
    site: str

    def stored(self) -> dict[str, Any]:
        """The selection as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Shown:
    """What a tab has before it, for what it exports.

    Attributes:
        run, selection: what is measured, and the place in it.
        theme: "light" or "dark".
        off: the panels that are switched off, as "instrument.panel".
        looks: the values of the tabs' own controls, by their names in the address.
    """

    run: Run
    selection: Selection
    theme: str
    off: tuple[str, ...]
    looks: Mapping[str, str]


@dataclass(frozen=True)
class Pending:
    """The page's latest job, and what the page does with its results.

    Attributes:
        job: its number at the desk.
        asked: what it measures.
        settings: with which settings.
        place: what is to be selected then: layer, position, site, prompt, as far as it is known.
        weights: the hash that a link was made with; "" where there is none.
        unused: what a link says and the page cannot use, a few words each.
        adds: whether its results join those on the page, or replace them.
        instruments, state, phase, done, total, seconds_left, error: as `workbench.jobs.Job` has
            them.
    """

    job: int
    asked: Asked
    settings: Settings
    place: Mapping[str, Any]
    weights: str = ""
    unused: tuple[str, ...] = ()
    adds: bool = False
    instruments: tuple[str, ...] = ()
    state: str = "queued"
    phase: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    error: str | None = None

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Pending:
        """The job from its stored form."""
        return cls(**(stored | {"asked": Asked(**stored["asked"])}))

    @property
    def going(self) -> bool:
        """Whether it waits or runs."""
        return self.state in GOING

    def stored(self) -> dict[str, Any]:
        """The job as plain data."""
        return asdict(self)

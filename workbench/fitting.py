"""What every fit shares: progress, cancel, a checkpoint to go on from, the held-out part."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.assembly import PACKAGES
from workbench.corpus import Corpus
from workbench.errors import Cancelled, ResultError, SettingError
from workbench.fitted_model import identity
from workbench.models.protocol import Model
from workbench.passes import CancelFlag, Progress
from workbench.prompts import Prompts
from workbench.store.shards import Shards

__all__ = ["Fit", "FitPlan", "Fitted", "Run", "versions"]

SECONDS = 60.0  # between two checkpoints
FITTING = "fit"


class Fitted(Protocol):
    """What a fit makes."""

    def save(self, path: str | Path) -> Path:
        """Save it, whole or not at all."""

    def described(self) -> dict[str, Any]:
        """Where it lies, its hash, and how it was made, as plain data."""

    def summary(self) -> str:
        """Where it lies, and what it does on the part held out, in lines of text."""


Made = TypeVar("Made", bound=Fitted)


@dataclass(frozen=True)
class FitPlan:
    """What a fit will do.

    Attributes:
        prompts, tokens: of the part that is fitted on.
        held_out: prompts held out.
        passes: forward and backward passes through the whole model, as multiples of one token's.
        work: what they are spent on, in words.
        bytes: of what is fitted.
    """

    prompts: int
    tokens: int
    held_out: int
    passes: int
    work: str
    bytes: int

    def __str__(self) -> str:
        return (
            f"{self.prompts} prompts ({self.tokens} tokens) to fit on, {self.held_out} held out; "
            f"{self.work}; {self.passes} token-passes; a file of {self.bytes / 2**20:.1f} MiB"
        )


@dataclass
class Run:
    """One fit in work.

    Attributes:
        model, corpus, held: the model, the part to fit on, the part held out.
        said: what the whole corpus says of itself.
        checkpoint: where to keep what there is; None to keep nothing.
        description: what must be equal for a fit to go on from a checkpoint.
    """

    model: Model
    corpus: Corpus
    held: Corpus
    said: Mapping[str, Any]
    checkpoint: Path | None
    description: Mapping[str, Any]
    total: int
    report: Callable[[Progress], None]
    cancel: CancelFlag | None

    def __post_init__(self) -> None:
        self._began = self._kept = time.monotonic()
        self._done = self._before = 0

    def resumed(self) -> dict[str, Tensor]:
        """What the checkpoint holds; nothing where there is none.

        Raises:
            ResultError: it is of another fit, or cannot be read.
        """
        if self.checkpoint is None or not self.checkpoint.is_file():
            return {}
        try:
            with safe_open(self.checkpoint, "pt") as file:
                found = json.loads((file.metadata() or {})[FITTING])
                held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
            raise ResultError(
                f"{self.checkpoint} is no checkpoint that can be read: remove it to begin anew"
            ) from error
        wanted = json.loads(json.dumps(self.description))
        for name, value in wanted.items():
            if found.get(name) != value:
                raise ResultError(
                    f"{self.checkpoint} is of another fit: its {name} is {found.get(name)}, asked is "
                    f"{value}; remove it to begin anew"
                )
        return held

    def advance(self, tokens: int, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Count finished work, and keep a checkpoint now and then."""
        self._done += tokens
        if self.checkpoint is not None and time.monotonic() - self._kept > SECONDS:
            self.keep(state())
        self._tell()

    def skip(self, tokens: int) -> None:
        """Count work that a checkpoint holds; it took no time here."""
        self._done += tokens
        self._before += tokens
        self._tell()

    def _tell(self) -> None:
        """Time left is at the pace of this run alone."""
        seconds = time.monotonic() - self._began
        fresh = self._done - self._before
        paced = seconds * self._done / fresh if fresh else 0.0
        self.report(Progress(self._done if fresh else 0, self.total, paced))

    def stop_if_asked(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Keep a checkpoint and stop, where the flag is set.

        Raises:
            Cancelled: it is.
        """
        if self.cancel is None or not self.cancel.is_set():
            return
        said = "nothing is kept"
        if self.checkpoint is not None:
            self.keep(state())
            said = f"kept in {self.checkpoint}"
        raise Cancelled(f"stopped after {self._done} of {self.total} tokens; {said}")

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Write the checkpoint, whole or not at all."""
        assert self.checkpoint is not None
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        with Shards(self.checkpoint.parent).replacing(self.checkpoint) as new:
            save_file(tensors, new, {FITTING: json.dumps(self.description)})
        self._kept = time.monotonic()


class Fit(ABC, Generic[Made]):
    """The settings of a fit; calling them with a model and a corpus gives what is fitted.

    Subclasses are frozen dataclasses with the fields `held_out`, `length` and `batch_tokens`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    held_out: float
    length: int
    batch_tokens: int

    def __call__(
        self,
        model: Model,
        corpus: Prompts | Corpus,
        *,
        checkpoint: str | Path | None = None,
        progress: Callable[[Progress], None] | None = None,
        cancel: CancelFlag | None = None,
    ) -> Made:
        """Fit on what `model` does with a corpus.

        Args:
            corpus: prompts, each a sequence of its own, or a `Corpus` (of a text file, say).
            checkpoint: a file that what there is goes into every minute and on a cancel. Where it
                exists the fit goes on from it, to the same end, bit for bit on a CPU.
            progress: called with tokens done and in all, and the time left.
            cancel: looked at between two batches.

        Raises:
            Cancelled: `cancel` was set; the checkpoint is kept.
            ResultError: the checkpoint is of another fit.
            SettingError, PromptError, UnsupportedError: before any work.
        """
        whole = Corpus.of(model, corpus)
        fitted, held = self._split(model, whole)
        run = Run(
            model,
            fitted,
            held,
            whole.said(held),
            None if checkpoint is None else Path(checkpoint),
            self._description(model, whole),
            self.total(fitted),
            progress or (lambda _: None),
            cancel,
        )
        return self.reported(run, self.fitted(run))

    def settings(self) -> dict[str, Any]:
        """The settings as plain data."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    def prepare(self, model: Model, corpus: Corpus) -> None:
        """Refuse, by name, a model or a corpus that cannot be fitted on."""

    @abstractmethod
    def plan(self, model: Model, corpus: Corpus) -> FitPlan:
        """What a fit on this corpus would do."""

    @abstractmethod
    def total(self, corpus: Corpus) -> int:
        """Tokens that progress counts."""

    @abstractmethod
    def fitted(self, run: Run) -> Made:
        """What is fitted, from the part that is not held out."""

    def reported(self, run: Run, made: Made) -> Made:
        """The same with its figures on the held-out part; as it is where `fitted` has given them."""
        return made

    @classmethod
    @abstractmethod
    def destination(cls, path: Path) -> Path:
        """`path`, if what is fitted could be saved there.

        Raises:
            ResultError: it could not.
        """

    def _split(self, model: Model, corpus: Corpus) -> tuple[Corpus, Corpus]:
        parts = corpus.split(self.held_out)
        self.prepare(model, corpus)
        return parts

    def _description(self, model: Model, corpus: Corpus) -> dict[str, Any]:
        return {
            "kind": self.name,
            "model": identity(model),
            "corpus": corpus.hash,
            "settings": self.settings(),
        }

    def _require(self, **least: tuple[float, float]) -> None:
        """Refuse a setting outside its ends, by name."""
        for name, (low, high) in least.items():
            value = getattr(self, name)
            sound = isinstance(value, int | float) and not isinstance(value, bool)
            whole = isinstance(low, float) or isinstance(value, int)
            if not (sound and whole and low <= value <= high):
                kind = "a number" if isinstance(low, float) else "a whole number"
                raise SettingError(
                    f"{self.name}: {name} is {value!r}: expected {kind} of {low:g}..{high:g}"
                )


def versions() -> dict[str, str]:
    """Of Python and of the packages that fit."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}

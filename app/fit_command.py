"""`workbench fit`: a text or a prompt set becomes a lens, or a dictionary; safe to stop and go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from app.interrupts import stopping
from app.progress_line import ProgressLine
from workbench.errors import Cancelled, PromptError, ResultError, SettingError

if TYPE_CHECKING:
    from workbench.corpus import Corpus
    from workbench.fitting import Fit
    from workbench.models.protocol import Model
    from workbench.passes import Progress

__all__ = ["Asked", "configured", "kinds", "print_cost", "run_fit"]

RESUME = "run the same command with --resume to go on"


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    Attributes:
        text, prompts: the file to fit on, one of them.
    """

    fit: Fit[Any]
    text: Path | None
    prompts: Path | None
    as_json: bool

    def __post_init__(self) -> None:
        if (self.text is None) == (self.prompts is None):
            raise PromptError("expected either --text FILE or --prompts FILE")
        file = self.text or self.prompts
        if file is not None and not file.is_file():
            raise PromptError(f"no file {file} to fit on")

    def corpus(self, model: Model) -> Corpus:
        """The corpus, as the model sees it."""
        from workbench.corpus import Corpus
        from workbench.prompts import PromptSet

        if self.text is not None:
            return Corpus.read_text(model, self.text, self.fit.length)
        return Corpus.of(model, PromptSet.read(self.prompts or ""))


def kinds() -> Mapping[str, type[Fit[Any]]]:
    """What can be fitted, by name."""
    from lenses import JacobianFit, TunedFit
    from probes import SparseAutoencoderFit

    return {kind.name: kind for kind in (TunedFit, JacobianFit, SparseAutoencoderFit)}


def configured(name: str, settings: Sequence[str]) -> Fit[Any]:
    """The fit called `name` with settings given as "name=value".

    Raises:
        SettingError: there is none, or it refuses a setting.
    """
    from workbench.settings import assigned

    if name not in kinds():
        raise SettingError(f"no fit {name!r}: expected one of {', '.join(kinds())}")
    return assigned(kinds()[name], name, settings)


def print_cost(asked: Asked, load: Callable[[], Model]) -> None:
    """Print what the fit will cost."""
    model = load()
    cost = asked.fit.plan(model, asked.corpus(model))
    typer.echo(json.dumps(dataclasses.asdict(cost)) if asked.as_json else cost)


def run_fit(asked: Asked, load: Callable[[], Model], out: Path, *, resume: bool) -> bool:
    """Fit and save; whether it came to its end. The first interrupt keeps a checkpoint."""
    out = asked.fit.destination(out)
    checkpoint = out.with_name(f"{out.stem}.checkpoint")
    _require_intent(checkpoint, resume=resume)
    model = load()
    corpus = asked.corpus(model)
    kept = f"what is in {checkpoint}, if there, is kept: {RESUME}"
    with stopping("stopping after this batch", kept) as stop:
        try:
            made = asked.fit(
                model, corpus, checkpoint=checkpoint, progress=ProgressLine(_words), cancel=stop
            )
        except Cancelled as stopped:
            typer.echo(f"{stopped}: {RESUME}", err=True)
            return False
    made.save(out)
    checkpoint.unlink(missing_ok=True)
    typer.echo(json.dumps(made.described()) if asked.as_json else made.summary())
    return True


def _require_intent(checkpoint: Path, *, resume: bool) -> None:
    """Refuse to go on from nothing, and to begin anew over hours of work."""
    if resume and not checkpoint.is_file():
        raise ResultError(f"no checkpoint {checkpoint} to resume from: leave --resume out")
    if not resume and checkpoint.is_file():
        raise ResultError(
            f"{checkpoint} is of a fit that was stopped: give --resume to go on, or remove it"
        )


def _words(progress: Progress) -> str:
    from workbench.report.words import duration

    left = "" if progress.seconds_left is None else f", {duration(progress.seconds_left)} left"
    return f"{progress.done} of {progress.total} tokens{left}"

"""`workbench report`: a prompt file and instruments become a folder; safe to stop and to repeat."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from app.interrupts import stopping
from app.progress_line import ProgressLine
from workbench.errors import SettingError
from workbench.settings import configure

if TYPE_CHECKING:
    from workbench.instrument import Instrument
    from workbench.models.protocol import Model
    from workbench.report import Headway, Summary
    from workbench.report.page import PlotlyJS

__all__ = ["Asked", "configured", "print_cost", "run_report"]

RESUME = "run the same command again to go on"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    prompts: Path
    instruments: Sequence[Instrument]
    shard_size: int
    batch_size: int | None
    skip_bad: bool
    as_json: bool


def configured(names: str, settings: Sequence[str]) -> list[Instrument]:
    """Instruments from comma-separated names and settings given as "instrument.name=value".

    Raises:
        SettingError: a setting of an instrument that is not among them, or that it refuses.
    """
    chosen = [name for name in names.split(",") if name]
    given: dict[str, list[str]] = {name: [] for name in chosen}
    for setting in settings:
        name, dot, assignment = setting.partition(".")
        if not dot or name not in given:
            raise SettingError(
                f"setting {setting!r}: expected instrument.name=value, of {', '.join(chosen)}"
            )
        given[name].append(assignment)
    return [configure(name, given[name]) for name in chosen]


def print_cost(asked: Asked, load: Callable[[], Model]) -> None:
    """Print what the report will cost."""
    from workbench.report import survey
    from workbench.report.planning import cost

    source = survey(asked.prompts, skip_bad=asked.skip_bad)
    found = cost(
        load(),
        source,
        asked.instruments,
        shard_size=asked.shard_size,
        batch_size=asked.batch_size,
    )
    typer.echo(json.dumps(dataclasses.asdict(found)) if asked.as_json else found)


def run_report(
    asked: Asked, load: Callable[[], Model], out: Path, *, shard: str, plotlyjs: str
) -> bool:
    """Write the report, or go on with it; whether all went well.

    The prompt file is looked at before the model is loaded. The first interrupt lets the shard end.
    """
    from workbench.report import report, survey

    part, bundle = _part(shard), _bundle(plotlyjs)
    source = survey(asked.prompts, skip_bad=asked.skip_bad)
    model = load()
    with stopping(
        "stopping when this shard is done", f"the finished shards are kept: {RESUME}"
    ) as stop:
        summary = report(
            model,
            source,
            asked.instruments,
            out,
            shard=part,
            shard_size=asked.shard_size,
            batch_size=asked.batch_size,
            plotlyjs=bundle,
            progress=ProgressLine(_words),
            stop=stop,
        )
    typer.echo(_as_json(summary) if asked.as_json else _as_text(summary))
    return not (summary.failed or summary.interrupted)


def _part(shard: str) -> tuple[int, int]:
    """Number and count of "2/8"."""
    number, slash, count = shard.partition("/")
    if not slash or not number.isdecimal() or not count.isdecimal():
        raise SettingError(f"shard {shard!r}: expected i/n, such as 2/8")
    return int(number), int(count)


def _bundle(plotlyjs: str) -> PlotlyJS:
    if plotlyjs not in ("inline", "directory"):
        raise SettingError(f"plotlyjs {plotlyjs!r}: expected inline or directory")
    return cast("PlotlyJS", plotlyjs)


def _words(headway: Headway) -> str:
    from workbench.report.words import duration

    left = headway.seconds_left
    said = "" if left is None else f", {duration(left)} left"
    return f"{headway.done:.0f} of {headway.total} prompts{said}"


def _as_json(summary: Summary) -> str:
    fields: dict[str, Any] = dataclasses.asdict(summary)
    return json.dumps(fields, default=str)


def _as_text(summary: Summary) -> str:
    lines = [f"{summary.shards - summary.left} of {summary.shards} shards in {summary.out}"]
    if summary.rejected:
        lines.append(f"{summary.rejected} bad lines left out: see rejected.jsonl")
    if summary.failed:
        lines.append(
            f"{summary.failed} of {summary.prompts} prompts with an error: see errors.jsonl"
        )
    if summary.interrupted:
        lines.append(f"stopped, with {summary.left} shards left: {RESUME}")
    elif summary.left:
        lines.append(
            f"{summary.left} shards are left to the other parts; the last one writes the page"
        )
    else:
        lines.append(f"read {summary.page}")
    return "\n".join(lines)

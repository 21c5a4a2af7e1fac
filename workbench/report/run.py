"""The report itself: shard after shard is measured and written, and the last one brings the page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from workbench.errors import SettingError
from workbench.instrument import Instrument, Reading, SetLevel
from workbench.models.protocol import Model
from workbench.models.sites import expand_sites
from workbench.passes import CancelFlag
from workbench.prompts import Prompts, PromptSet
from workbench.report.attempts import Attempt
from workbench.report.description import description, recorded
from workbench.report.finish import finish
from workbench.report.folder import Folder
from workbench.report.headway import Headway, Pace
from workbench.report.page import PlotlyJS
from workbench.report.reading import PromptFile, PromptSource, every_prompt, source_of
from workbench.report.shard import write_shard
from workbench.store.manifest import open_manifest

__all__ = ["SHARD_SIZE", "Summary", "report"]

SHARD_SIZE = 100
REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class Summary:
    """What a report has come to.

    Attributes:
        out: the folder.
        prompts: how many there are.
        failed: prompts of the finished shards that an instrument could not measure.
        rejected: lines of the prompt file that were left out.
        shards: how many there are.
        left: shards that are not finished, by whomever.
        interrupted: whether the run was stopped before its last shard.
        page: the page that a person reads; None while shards are left.
    """

    out: Path
    prompts: int
    failed: int
    rejected: int
    shards: int
    left: int
    interrupted: bool
    page: Path | None


def report(
    model: Model,
    prompts: Path | Prompts | PromptSource,
    instruments: Sequence[Instrument],
    out: str | Path,
    *,
    shard: tuple[int, int] = (1, 1),
    shard_size: int = SHARD_SIZE,
    batch_size: int | None = None,
    skip_bad: bool = False,
    plotlyjs: PlotlyJS = "inline",
    progress: Callable[[Headway], None] | None = None,
    stop: CancelFlag | None = None,
) -> Summary:
    """Measure a prompt set with every instrument, and write a folder that can be resumed and read.

    The folder has a manifest, `shards/*/<instrument>.parquet` with tidy rows, `errors.jsonl` and
    `report.html`. A prompt that cannot be measured is kept as an error, with the line of the prompt
    file that it stands in, and the run goes on. The
    same call again goes on where the last one ended, however it ended; several processes may write
    into one folder.

    Args:
        prompts: the path of a prompt file, which is read as a stream; what `survey` made of one; or
            prompts.
        out: the folder; made where it is missing.
        shard: (i, n): take every n-th shard from the i-th on, counted from 1.
        shard_size: prompts in a shard; what is lost when a run is killed.
        batch_size: as in `workbench.measure`.
        skip_bad: leave out bad lines of a prompt file, and write them to `rejected.jsonl`.
        plotlyjs: "inline" for a page of one file, "directory" for a page with plotly.min.js beside it.
        progress: called after each batch and each shard.
        stop: looked at after each shard.

    Raises:
        PromptError, SettingError, UnsupportedError, ModelError: before any work, for what holds for
            every prompt.
        ResultError: the folder is another run's, or cannot be used.
    """
    source = source_of(prompts, skip_bad=skip_bad)
    _require_sound(model, instruments, shard, shard_size, batch_size)
    instruments = [instrument.settled(model, every_prompt(source)) for instrument in instruments]
    folder = Folder(Path(out))
    open_manifest(
        folder.path,
        description(model, source, instruments, shard_size),
        recorded=recorded(model, source),
    )
    if isinstance(source, PromptFile):
        rows = ({**asdict(one), "raw": line} for one, line in source.raw())
        folder.write_lines(REJECTED, rows)
    run = _Run(model, source, instruments, folder, shard_size, batch_size)
    stopped = run.measure(shard, progress or (lambda _: None), stop)
    left = len(run.missing())
    page = None if left else finish(model, instruments, folder, plotlyjs)
    return Summary(
        out=folder.path,
        prompts=source.count,
        failed=len({failure.prompt for failure in folder.failures()}),
        rejected=len(source.rejected),
        shards=len(run.starts()),
        left=left,
        interrupted=stopped and bool(left),
        page=page,
    )


def _require_sound(
    model: Model,
    instruments: Sequence[Instrument],
    shard: tuple[int, int],
    shard_size: int,
    batch_size: int | None,
) -> None:
    """Refuse what no prompt could be measured with."""
    number, count = shard
    if not 1 <= number <= count:
        raise SettingError(f"shard {number}/{count}: expected i/n with i from 1 to n")
    if shard_size < 1:
        raise SettingError(f"shard size is {shard_size}: expected at least 1")
    names = [instrument.name for instrument in instruments]
    if not names or len(set(names)) < len(names):
        raise SettingError(f"instruments {names}: expected at least one, and each of them once")
    if batch_size is not None and batch_size < 1:
        raise SettingError(f"batch_size is {batch_size}: expected at least 1")
    for instrument in instruments:
        instrument.prepare(model)
        if isinstance(instrument, Reading | SetLevel):
            expand_sites(instrument.reads(model).sites, model.n_layers)


@dataclass(frozen=True)
class _Run:
    """One process' part in a report."""

    model: Model
    source: PromptSource
    instruments: Sequence[Instrument]
    folder: Folder
    shard_size: int
    batch_size: int | None

    def starts(self) -> range:
        """Index of the first prompt of each shard."""
        return range(0, self.source.count, self.shard_size)

    def missing(self) -> set[int]:
        """Those of the shards that are not finished."""
        finished = set(self.folder.shards.keys())
        return {start for start in self.starts() if self.folder.key(start) not in finished}

    def measure(
        self, shard: tuple[int, int], show: Callable[[Headway], None], stop: CancelFlag | None
    ) -> bool:
        """Measure this process' share of what is missing; whether it was stopped."""
        number, count = shard
        mine = self.missing() & set(self.starts()[number - 1 :: count])
        pace = Pace(sum(self._size(start) for start in mine), show)

        def wanted(start: int) -> bool:
            return start in mine and self.folder.key(start) not in self.folder.shards

        for start, prompts in self.source.shards(self.shard_size, wanted):
            self._measure_shard(self.folder.key(start), prompts, pace)
            if stop is not None and stop.is_set():
                return True
        return False

    def _size(self, start: int) -> int:
        return min(self.shard_size, self.source.count - start)

    def _measure_shard(self, key: str, prompts: PromptSet, pace: Pace) -> None:
        began = time.monotonic()
        with self.folder.shards.writing(key) as folder:
            attempt = Attempt(
                self.model, self.batch_size, lambda progress: pace.within(len(prompts), progress)
            )
            attempt.measure(prompts, self.instruments)
            write_shard(folder, prompts, self.instruments, attempt, began)
        pace.add(len(prompts))

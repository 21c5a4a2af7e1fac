"""The last step of a report, when every shard is there: one schema, merged states, and the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import reduce
from pathlib import Path

import polars as pl
from safetensors.torch import load_file

from workbench.errors import WorkbenchError
from workbench.instrument import Instrument, SetLevel
from workbench.models.protocol import Model
from workbench.passes import finished
from workbench.report.folder import ERRORS, Folder
from workbench.report.page import PlotlyJS, write_page
from workbench.report.sections import Section
from workbench.report.tables import frame, settle, write

__all__ = ["finish"]


def finish(
    model: Model, instruments: Sequence[Instrument], folder: Folder, plotlyjs: PlotlyJS
) -> Path:
    """Make of finished shards what is read of them; done again, it gives the same.

    Returns:
        The page.
    """
    folder.shards.sweep()
    folder.write_lines(ERRORS, (asdict(failure) for failure in folder.failures()))
    sections = {
        instrument: _with_remarks(
            instrument.remarks(model),
            _set_level(model, instrument, folder)
            if isinstance(instrument, SetLevel)
            else _by_prompt(instrument, folder),
        )
        for instrument in instruments
    }
    write_page(folder, sections, plotlyjs)
    return folder.page


def _with_remarks(remarks: Sequence[str], section: Section) -> Section:
    """The section after what must be said of how far its numbers can be trusted."""
    return replace(section, remarks=[*(f"{remark}." for remark in remarks), *section.remarks])


def _by_prompt(instrument: Instrument, folder: Folder) -> Section:
    paths = folder.files(f"{instrument.name}.parquet")
    if not paths:
        return _nothing("no prompt could be measured")
    settle(folder.shards, paths)
    return instrument.section(pl.scan_parquet(paths))


def _set_level(model: Model, instrument: SetLevel, folder: Folder) -> Section:
    paths = folder.files(f"{instrument.name}.safetensors")
    if not paths:
        return _nothing("no prompt could be measured")
    try:
        result = finished(instrument, model, reduce(instrument.merge, map(load_file, paths)))
    except WorkbenchError as error:
        return _nothing(str(error))
    table = frame(instrument.rows(result.data))
    with folder.shards.replacing(folder.path / f"{instrument.name}.nc") as new:
        result.save(new)
    with folder.shards.replacing(folder.path / f"{instrument.name}.parquet") as new:
        write(table, new)
    return instrument.section(table.lazy(), result.data)


def _nothing(reason: str) -> Section:
    return Section(remarks=[f"There is no result: {reason}."])

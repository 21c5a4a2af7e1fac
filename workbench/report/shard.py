"""What the folder of one shard holds: tidy rows, states, prompts, errors, and how it was made."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl
from safetensors.torch import save_file

from workbench.instrument import Instrument, SetLevel
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.passes import Gathered
from workbench.prompts import Prompt, PromptSet
from workbench.report.attempts import Attempt
from workbench.report.folder import ERRORS, MADE, PROMPTS, json_lines
from workbench.report.tables import frame, write

__all__ = ["write_shard"]

PROMPT_COLUMNS = {
    "text": pl.String(),
    "target": pl.String(),
    "foil": pl.String(),
    "group": pl.String(),
    "tokens": pl.Int64(),
}


def write_shard(
    folder: Path,
    prompts: PromptSet,
    instruments: Sequence[Instrument],
    attempt: Attempt,
    began: float,
) -> None:
    """Write into `folder` what `attempt`, begun at that monotonic time, has made of `prompts`.

    A file is left out where there is nothing to write: no prompt could be measured, or no error met.
    """
    for instrument in instruments:
        if isinstance(instrument, SetLevel):
            _write_state(folder, instrument, attempt.of(instrument))
        else:
            _write_rows(folder, instrument, attempt.of(instrument))
    write(_prompt_table(prompts, attempt), folder / PROMPTS)
    if attempt.failures:
        lines = json_lines(asdict(failure) for failure in attempt.failures)
        (folder / ERRORS).write_text(lines, encoding="utf-8")
    (folder / MADE).write_text(json.dumps(_made(attempt, began)), encoding="utf-8")


def _made(attempt: Attempt, began: float) -> dict[str, Any]:
    return {
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - began, 3),
        "device": str(attempt.model.device),
    }


def _write_rows(folder: Path, instrument: Instrument, gathered: Sequence[Gathered]) -> None:
    table = frame(_rows(instrument, gathered))
    if not table.is_empty():
        write(table, folder / f"{instrument.name}.parquet")


def _rows(instrument: Instrument, gathered: Sequence[Gathered]) -> Iterator[Mapping[str, Any]]:
    for one in gathered:
        yield from instrument.rows(one.result().data)


def _write_state(folder: Path, instrument: SetLevel, gathered: Sequence[Gathered]) -> None:
    states = [one.state for one in gathered if one.state is not None]
    if states:
        merged = reduce(instrument.merge, states)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in merged.items()}
        save_file(tensors, folder / f"{instrument.name}.safetensors")


def _prompt_table(prompts: PromptSet, attempt: Attempt) -> pl.DataFrame:
    encoded = {
        name: one
        for part in attempt.gathered
        for name, one in zip(part.prompts.names, part.encoded, strict=True)
    }
    rows = [
        _prompt_row(prompt, encoded.get(name), attempt.model)
        for name, prompt in zip(prompts.names, prompts, strict=True)
    ]
    names = pl.Series("prompt", prompts.names)
    return pl.DataFrame(rows, schema=PROMPT_COLUMNS).insert_column(0, names)


def _prompt_row(prompt: Prompt, encoded: EncodedPrompt | None, model: Model) -> dict[str, Any]:
    """One prompt; what its tokens are is not known where it could not be encoded."""
    row: dict[str, Any] = {"text": prompt.shown, "group": prompt.group}
    if encoded is None:
        return row
    row["text"] = encoded.text
    text = model.tokens.text
    followed = {"target": encoded.target, "foil": encoded.foil}
    texts = {role: text(i) for role, i in followed.items() if i is not None}
    if encoded.answer:
        texts["target"] = "".join(map(text, encoded.answer))
    return row | texts | {"tokens": len(encoded.ids)}

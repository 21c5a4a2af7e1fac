"""The suite over tiny random models of every family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

import workbench as wb
from tests.tiny import hf_model, tokenizer_of
from workbench.conformance import Answers, Cell, conform, probe_prompts

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def family_cells(family: str, engines: Sequence[str], dtype: str) -> Iterator[Cell]:
    """Every cell of one family in one dtype; Hugging Face answers once for all engines."""
    hf = hf_model(family, DTYPES[dtype])
    answers = Answers(hf, probe_prompts(hf))
    for engine in engines:
        load = partial(wb.load, hf, tokenizer_of(family), engine=engine)
        yield from conform(hf, load, answers, engine=engine, family=family)

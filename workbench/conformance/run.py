"""Running the suite on one model: every cell ends as a number, a refusal or a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from workbench.conformance.answers import Answers
from workbench.conformance.case import Case
from workbench.conformance.cells import Cell, Finding
from workbench.conformance.leftovers import Snapshot
from workbench.conformance.operations import OPERATIONS, Operation
from workbench.conformance.oracle import ENCODER
from workbench.errors import ModelError, UnsupportedError
from workbench.models.edits import Edit
from workbench.models.engine import Engine
from workbench.models.sites import CROSS_SITES, SITES
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

__all__ = ["CLEAN", "conform", "probe_prompts"]

LENGTHS = (11, 4, 7, 1)  # unequal, one of them a single token, the longest first
REFUSALS = (UnsupportedError, ModelError)
CLEAN = "clean"
MODEL = "model"


def probe_prompts(hf: Any, special: Sequence[int] = ()) -> tuple[EncodedPrompt, ...]:
    """Prompts of unequal length, of ordinary tokens from all over the vocabulary.

    Args:
        hf: the Hugging Face model.
        special: ids to leave out.
    """
    rows = hf.get_input_embeddings().num_embeddings
    ordinary = [token for token in range(rows) if token not in set(special)]
    step = max(1, int(len(ordinary) * 0.381966))  # the golden section spreads them
    ids = [ordinary[(7 + step * i) % len(ordinary)] for i in range(sum(LENGTHS))]
    starts = [sum(LENGTHS[:i]) for i in range(len(LENGTHS))]
    return tuple(
        EncodedPrompt(Prompt("probe"), tuple(ids[start : start + length]), (), None, None)
        for start, length in zip(starts, LENGTHS, strict=True)
    )


def conform(
    hf: Any,
    load: Callable[[], Engine],
    answers: Answers,
    *,
    engine: str,
    family: str,
) -> Iterator[Cell]:
    """Every cell of one model on one engine.

    Args:
        hf: the Hugging Face model that `load` hooks.
        load: gives the hooked model; its refusal, or failure, is then every cell's.
        answers: of the same model, to `probe_prompts`.
        engine, family: names for the cells.
    """
    dtype = str(next(hf.parameters()).dtype).removeprefix("torch.")
    blank = Cell(engine, family, MODEL, CLEAN, dtype, "none")
    sites = _sites(hf)
    before = Snapshot(hf, answers.prompts[1].ids)
    try:
        case = Case(load(), answers)
    except Exception as error:
        yield from (_without_number(cell, error) for cell, _ in _cells(blank, sites))
        yield _without_number(blank, error)
        return
    for cell, operation in _cells(blank, sites):
        yield _attempt(cell, partial(operation.measure, case, cell.site, cell.side))
    yield _attempt(blank, partial(_left_behind, case, before))


def _sites(hf: Any) -> list[str]:
    """Every site there is: a model of two stacks has an encoder's as well, with a prefix."""
    encoder = [site for site in SITES if site not in (*CROSS_SITES, "logits")]
    return [*SITES, *(ENCODER + site for site in encoder if hf.config.is_encoder_decoder)]


def _cells(blank: Cell, sites: Sequence[str]) -> Iterator[tuple[Cell, Operation]]:
    """Each comparison's cells, without their numbers."""
    for operation in OPERATIONS:
        for site in filter(operation.at, sites):
            for padding in operation.paddings or ("none",):
                named = replace(blank, operation=operation.name, site=site, padding=padding)
                yield named, operation


def _attempt(cell: Cell, measure: Callable[[], Finding]) -> Cell:
    try:
        return cell.measured(measure())
    except Exception as error:
        return _without_number(cell, error)


def _without_number(cell: Cell, error: Exception) -> Cell:
    if isinstance(error, REFUSALS):
        return replace(cell, refusal=str(error))
    return replace(cell, failure=f"{type(error).__name__}: {error}")


def _left_behind(case: Case, before: Snapshot) -> Finding:
    """How much is not as it was, after all calls and after two that an exception ended.

    Raises:
        AssertionError: names what has changed, or the exception did not come out.
    """
    batch = case.batch("right")
    _interrupted(lambda: case.model.intervene(batch, [Edit(case.at("attn_out"), _raise)]))
    _interrupted(lambda: case.model.grad(batch, _raise, [case.at("resid_post")]))
    if changes := before.changes():
        raise AssertionError(f"left behind on the model: {', '.join(changes)}")
    return Finding(0.0, 0.0)


class _OurOwn(Exception):
    """What the suite's own functions raise inside a pass."""


def _raise(*_: Any) -> Tensor:
    raise _OurOwn


def _interrupted(call: Callable[[], Any]) -> None:
    with suppress(_OurOwn, *REFUSALS):
        call()
        raise AssertionError("an exception inside a pass did not come out of it")

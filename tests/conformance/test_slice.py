"""The part of the suite that runs with every test: all families on torch, some on the others."""

from __future__ import annotations

import pytest

from tests.conformance.suite import family_cells
from tests.tiny import CONFIGS, has
from workbench.conformance import Cell
from workbench.models.engines import ENGINES
from workbench.models.sites import CROSS_SITES

OTHERS = [engine for engine in ENGINES if engine != "torch"]
STREAM = ("embed", "resid_pre", "resid_post", "final_norm", "logits")
BRANCHES = ("attn_out", "mlp_out", "z")


def sound(cells: list[Cell]) -> list[Cell]:
    """The cells, of which none may fail."""
    failed = [cell.row() for cell in cells if cell.verdict == "fails"]
    assert not failed, failed
    assert all((cell.error is None) == (cell.refusal is not None) for cell in cells)
    return cells


def captured(cells: list[Cell]) -> set[str]:
    """The sites whose values are Hugging Face's."""
    return {c.site for c in cells if c.operation == "capture" and c.verdict == "holds"}


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_on_torch(family: str) -> None:
    cells = sound(list(family_cells(family, ["torch"], "float64")))
    sites = {c.site for c in cells if c.operation == "capture"}
    # A T5 block has three branches, and so no single state between two; the others have no encoder.
    lacking = {"resid_mid"} if family.startswith("t5") else {*CROSS_SITES}
    assert sites - captured(cells) == {s for s in sites if not has(family, s)} | lacking
    whole = {c.operation for c in cells if c.verdict == "holds"}
    assert whole >= {"same", "edit", "grad", "restart", "readout", "batch", "stack", "clean"}


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_oss"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lower_precision(family: str, dtype: str) -> None:
    cells = sound(list(family_cells(family, ["torch"], dtype)))
    assert captured(cells) >= {*STREAM, *BRANCHES}


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2"])
@pytest.mark.parametrize("engine", OTHERS)
def test_the_other_engines(family: str, engine: str) -> None:
    cells = sound(list(family_cells(family, [engine], "float32")))
    assert captured(cells) >= {*STREAM, *BRANCHES}
    whole = {c.operation for c in cells if c.verdict == "holds"}
    assert whole >= {"same", "edit", "grad", "identity", "readout", "batch", "clean"}

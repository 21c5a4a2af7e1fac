"""The suite itself: it sees what is wrong, and says what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import workbench as wb
from tests.tiny import hf_model, tokenizer
from workbench.conformance import Answers, Cell, conform, probe_prompts
from workbench.conformance.cells import Finding
from workbench.conformance.oracle import Oracle, eager_is_right
from workbench.conformance.table import Notes, grid, summary, tables


class Deaf(wb.TorchModel):
    """Hears of edits and does not make them."""

    def read(self, *args: Any, **kwargs: Any) -> Any:
        return super().read(*args, **kwargs | {"edits": ()})


class Swapped(wb.TorchModel):
    """Takes one branch for the other: in parallel blocks the sum still holds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = self.anatomy.family
        self.anatomy.family = replace(own, attn_out=own.mlp_out, mlp_out=own.attn_out)


class Leaky(wb.TorchModel):
    """Leaves a hook behind."""

    def readout(self, resid: torch.Tensor) -> torch.Tensor:
        self.anatomy.block(2).register_forward_hook(lambda *_: None)
        return super().readout(resid)


class Normed(wb.TorchModel):
    """Takes Hugging Face's last hidden state, which is normed, for the last layer's."""

    def read(self, *args: Any, **kwargs: Any) -> Any:
        found = super().read(*args, **kwargs)
        for captures in found:
            last = wb.Site("resid_post", self.n_layers)
            if last in captures.values:
                captures.values[last] = self.anatomy.final_norm(captures.values[last])
        return found


class Broken(wb.TorchModel):
    """Fails as no engine should."""

    def grad(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of order")


def cells_of(kind: type[wb.TorchModel], family: str = "gpt2") -> list[Cell]:
    hf = hf_model(family)
    answers = Answers(hf, probe_prompts(hf))

    def load() -> wb.Engine:
        return kind(hf, tokenizer(), name="tiny")

    return list(conform(hf, load, answers, engine="torch", family=family))


def failing(cells: list[Cell]) -> set[str]:
    return {cell.operation for cell in cells if cell.verdict == "fails"}


def test_a_sound_engine_passes() -> None:
    assert failing(cells_of(wb.TorchModel)) == set()


@pytest.mark.parametrize(
    ("kind", "family", "seen"),
    [
        (Deaf, "gpt2", {"edit"}),
        (Swapped, "gpt_neox", {"capture"}),
        (Normed, "gpt2", {"capture", "identity", "restart"}),
        (Leaky, "gpt2", {"clean"}),
        (Broken, "gpt2", {"grad"}),
    ],
)
def test_what_is_wrong_is_seen(kind: type[wb.TorchModel], family: str, seen: set[str]) -> None:
    assert seen <= failing(cells_of(kind, family))


def test_what_is_left_behind_is_named() -> None:
    (cell,) = [c for c in cells_of(Leaky) if c.operation == "clean"]
    assert cell.failure == "AssertionError: left behind on the model: module transformer.h.1"


def test_an_unexpected_exception_is_a_failed_cell() -> None:
    failed = [c for c in cells_of(Broken) if c.operation == "grad"]
    assert {c.failure for c in failed} == {"RuntimeError: out of order"}


def test_a_refused_model_is_refused_in_every_cell() -> None:
    hf = hf_model("gpt2")

    def load() -> wb.Engine:
        raise wb.UnsupportedError("no such family")

    cells = list(conform(hf, load, Answers(hf, probe_prompts(hf)), engine="none", family="gpt2"))
    assert {(c.verdict, c.refusal) for c in cells} == {("refused", "no such family")}
    assert len(cells) == len(cells_of(wb.TorchModel))


def blank(**values: Any) -> Cell:
    return Cell("torch", "gpt2", "q", "capture", "float32", "left", **values)


def test_verdicts() -> None:
    assert blank().verdict == "fails"
    assert blank(error=1.0, tolerance=2.0).verdict == "holds"
    assert blank(error=3.0, tolerance=2.0).verdict == "fails"
    assert blank(refusal="no").verdict == "refused"
    assert blank(failure="ValueError: no").verdict == "fails"
    lost = blank().measured(Finding(float("nan"), 1.0))
    assert lost.verdict == "fails"
    assert json.loads(json.dumps(lost.row(), allow_nan=False))["error"] is None


def test_a_table_shows_the_largest_error_and_numbers_each_message_once() -> None:
    notes = Notes()
    cells = [
        blank(error=1e-7, tolerance=1.0),
        blank(error=3e-7, tolerance=1.0),
        Cell("torch", "bloom", "q", "capture", "float32", "left", refusal="bloom has no q"),
        Cell("torch", "bloom", "q", "capture", "float32", "right", refusal="bloom has no q"),
        Cell("torch", "opt", "q", "capture", "float32", "left", error=2.0, tolerance=1.0),
    ]
    assert grid(cells, "family", "site", ("k", "q"), notes) == [
        "| family | q         |",
        "|--------|-----------|",
        "| gpt2   | 3e-07     |",
        "| bloom  | [^1]      |",
        "| opt    | FAILS[^2] |",
    ]
    assert notes.lines() == ["[^1]: bloom has no q", "[^2]: error 2, tolerance 1"]
    assert summary(cells) == "5 cells: 2 hold, 2 refused, 1 fail"
    assert "**capture**" in tables(cells, "family", notes)


def test_falcon_with_alibi_contradicts_itself_in_hugging_face() -> None:
    """If this fails, transformers has mended its eager code, and the oracle can use it there too."""
    hf = hf_model("falcon_alibi")
    assert not eager_is_right(hf.config)
    ids = torch.tensor([[65, 66, 67, 68, 69, 70]])
    with torch.no_grad():
        fused = hf(ids, use_cache=False).logits
        hf.config._attn_implementation = "eager"
        assert (hf(ids, use_cache=False).logits - fused).abs().max() > 0.01


def test_the_oracle_leaves_the_model_as_it_is() -> None:
    hf = hf_model("llama")
    before = [len(module._forward_hooks) for module in hf.modules()]
    Oracle(hf, (1, 2, 3)).states((4, 5, 6))
    assert [len(module._forward_hooks) for module in hf.modules()] == before
    assert hf.config._attn_implementation == "sdpa"

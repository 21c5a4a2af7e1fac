"""One job's work: one pass for what is new, stored results for the rest, refusals by name."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import xarray as xr

import workbench as wb
from lenses import LogitLens
from probes import ProbeAblation, SparseProbe, Steering
from tests.test_passes import LossOfNext, MeanState, StateNorm, counted
from tests.tiny import hf_model, model, tokenizer
from workbench.jobs.execute import execute
from workbench.jobs.folder import ResultFolder
from workbench.jobs.keys import code_hash, keys

PROMPTS = wb.PromptSet.of([wb.Prompt("Rome", target="x"), wb.Prompt("a b c d e f g h")])


@pytest.fixture
def kept(tmp_path: Path) -> ResultFolder:
    return ResultFolder(tmp_path)


@pytest.fixture
def tiny() -> wb.TorchModel:
    return model("gpt2", torch.float32)


def test_stored_results_are_those_of_measure(tiny: wb.TorchModel, kept: ResultFolder) -> None:
    instruments = [LogitLens(top_k=3), StateNorm(), MeanState()]
    outcome = execute(tiny, PROMPTS, instruments, kept)
    assert list(outcome.results) == ["logit_lens", "state_norm", "mean_state"]
    for instrument, expected in zip(
        instruments, wb.measure(tiny, PROMPTS, instruments), strict=True
    ):
        stored = kept.load(outcome.results[instrument.name])
        xr.testing.assert_allclose(stored.data, expected.data, rtol=1e-5, atol=1e-5)
        assert stored.provenance["settings"] == expected.provenance["settings"]


def test_nothing_is_measured_twice(tiny: wb.TorchModel, kept: ResultFolder) -> None:
    first = execute(tiny, PROMPTS, [LogitLens()], kept)
    with counted(tiny) as rows:
        again = execute(tiny, PROMPTS, [LogitLens()], kept)
        assert (again.results, again.reused, rows) == (first.results, ["logit_lens"], [])
        more = execute(tiny, PROMPTS, [LogitLens(), StateNorm()], kept, batch_size=1)
    assert len(rows) == len(PROMPTS)
    assert more.reused == ["logit_lens"]
    assert set(more.results) == {"logit_lens", "state_norm"}


@pytest.mark.parametrize(
    "other",
    [
        {"instruments": [LogitLens(top_k=4)]},
        {"instruments": [LogitLens(positions=slice(0, 2))]},
        {"prompts": PROMPTS.subset([1, 0])},
        {"prompts": wb.PromptSet.of([wb.Prompt("Rome", target="y"), PROMPTS[1]])},
        {"prompts": wb.PromptSet.of([wb.Prompt("Rome", target="x", id="r"), PROMPTS[1]])},
        {"prompts": wb.PromptSet.of([wb.Prompt("Rome", target="x", labels=[1]), PROMPTS[1]])},
        {"model": model("gpt2", torch.float64)},
        {"model": model("llama", torch.float32)},
    ],
)
def test_whatever_numbers_depend_on_changes_the_key(
    other: dict[str, Any], tiny: wb.TorchModel
) -> None:
    asked = {"model": tiny, "prompts": PROMPTS, "instruments": [LogitLens()]}
    assert keys_of(**asked) == keys_of(**asked)
    assert keys_of(**asked) != keys_of(**(asked | other))


def keys_of(model: wb.TorchModel, prompts: wb.PromptSet, instruments: Any) -> dict[str, str]:
    return keys(model, prompts, [model.encode(prompt) for prompt in prompts], instruments)


def test_changed_weights_change_the_key(kept: ResultFolder) -> None:
    own = wb.load(hf_model("gpt2", torch.float32), tokenizer())
    first = execute(own, PROMPTS, [LogitLens()], kept)
    with torch.no_grad():
        own.hf.transformer.ln_f.weight.mul_(1.5)
    assert execute(own, PROMPTS, [LogitLens()], kept).results != first.results


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "text", "empty"])
def test_a_damaged_file_is_measured_again(
    damage: str, tiny: wb.TorchModel, kept: ResultFolder
) -> None:
    key = execute(tiny, PROMPTS, [LogitLens()], kept).results["logit_lens"]
    path, whole = kept.path(key), kept.load(key)
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "zeroed": bytes(len(content)),
            "text": b"not a result",
            "empty": b"",
        }[damage]
    )
    with pytest.raises(wb.ResultError, match="is damaged: retry its job"):
        kept.load(key)
    again = execute(tiny, PROMPTS, [LogitLens()], kept)
    assert again.reused == []
    xr.testing.assert_allclose(kept.load(key).data, whole.data, rtol=1e-5, atol=1e-5)


def test_a_refusal_does_not_stop_the_others(tiny: wb.TorchModel, kept: ResultFolder) -> None:
    from workbench_toys import Late, Picky

    outcome = execute(tiny, PROMPTS, [LogitLens(), Picky(), Late(), LossOfNext()], kept)
    assert list(outcome.results) == ["logit_lens", "loss_of_next"]
    assert outcome.refused == {
        "toy_picky": "toy_picky: 3 layers are not to its liking",
        "toy_late": "toy_late: this prompt will not do",
    }


def test_what_is_settled_on_prompts_is_settled_before_it_may_refuse(
    tiny: wb.TorchModel, kept: ResultFolder, tmp_path: Path
) -> None:
    """A probe that is in a file is read first; one written anew there is another measurement."""
    labelled = [
        wb.Prompt(
            f"{word} x{'s' * plural}", target="ab"[plural], group=word, labels={"plural": plural}
        )
        for word in "abcdefghijklmnop"
        for plural in (0, 1)
    ]
    file = tmp_path / "probe.nc"
    ends = []
    for seed in (0, 1):
        SparseProbe(k=1, permutations=0, seed=seed)(tiny, labelled).save(file)
        going_on = [Steering(probe=str(file), draws=1), ProbeAblation(probe=str(file), draws=1)]
        outcome = execute(tiny, wb.PromptSet.of(labelled), going_on, kept)
        assert (outcome.refused, outcome.reused) == ({}, [])
        ends.append(outcome.results)
    assert not set(ends[0].values()) & set(ends[1].values())
    nothing = execute(tiny, wb.PromptSet.of(labelled), [Steering()], kept)
    assert nothing.refused["steer"].startswith("steer: no probe: expected probe=FILE")


def test_a_bad_prompt_stops_all(tiny: wb.TorchModel, kept: ResultFolder) -> None:
    with pytest.raises(wb.PromptError, match="the model's context is 64"):
        execute(tiny, wb.PromptSet.of(["fine", "x" * 65]), [LogitLens(), StateNorm()], kept)
    with pytest.raises(wb.TargetError, match="2 tokens"):
        execute(tiny, wb.PromptSet.of(wb.Prompt("x", target="ab")), [LogitLens()], kept)
    assert not list(kept.root.iterdir())


def test_a_programmers_error_is_not_taken_for_a_refusal(
    tiny: wb.TorchModel, kept: ResultFolder
) -> None:
    from workbench_toys import Broken

    with pytest.raises(TypeError, match="too many"):
        execute(tiny, PROMPTS, [Broken()], kept)


def test_the_code_that_measures_is_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    hashes = []
    for name, source in (("alone", "x = 1"), ("alone", "x = 2")):
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
        code_hash.cache_clear()
        importlib.invalidate_caches()
        importlib.import_module(name)
        hashes.append(code_hash(name))
    assert hashes[0] != hashes[1]
    assert hashes[1] == code_hash("alone")
    assert code_hash("lenses") != code_hash("workbench")
    monkeypatch.delitem(sys.modules, "alone")


@dataclass(frozen=True)
class Faulty(StateNorm):
    """Somebody's instrument with a mistake in it."""

    name: ClassVar[str] = "faulty"

    def measure(self, captures: wb.Captures) -> wb.Measured:
        raise TypeError("a mistake")


def test_a_faulty_instrument_does_not_take_the_others_down(kept: ResultFolder) -> None:
    outcome = execute(model("gpt2", torch.float32), PROMPTS, [LogitLens(), Faulty()], kept)
    assert list(outcome.results) == ["logit_lens"]
    assert outcome.refused["faulty"].startswith("Unexpected TypeError in measure (test_execute.py")
    assert "a mistake" in outcome.traces[0]

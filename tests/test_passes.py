"""The batched pass: the same numbers in any batching, one forward for many instruments."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr

import workbench as wb
from lenses import LogitLens
from probes import AttributionPatch
from tests.tiny import hf_model, model, tokenizer
from workbench.atlas import prompts_path
from workbench.passes import finished, gather

TEXTS = [f"prompt number {n} " + "x" * (n % 7) * 3 for n in range(64)]


@dataclass(frozen=True)
class StateNorm(wb.Reading):
    """Norm of the state after every block: a second reader for the tests."""

    positions: Any = "all"
    name: ClassVar[str] = "state_norm"
    title: ClassVar[str] = "State norm"
    citation: ClassVar[wb.Citation] = wb.Citation("", "")

    def reads(self, model: wb.Model) -> wb.Read:
        return wb.Read(("resid_post",), self.positions)

    def measure(self, captures: wb.Captures) -> wb.Measured:
        return {
            "norm": wb.Named(("layer", "place"), captures.stack("resid_post").norm(dim=-1), "1")
        }

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {"layer": list(range(model.n_layers + 1))}

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    @classmethod
    def figure(cls, data: xr.Dataset, *, theme: str = "light", **options: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class MeanState(wb.SetLevel):
    """Mean of the last state over the set."""

    name: ClassVar[str] = "mean_state"
    title: ClassVar[str] = "Mean state"
    citation: ClassVar[wb.Citation] = wb.Citation("", "")
    rows = StateNorm.rows
    figure = StateNorm.figure

    def reads(self, model: wb.Model) -> wb.Read:
        return wb.Read((("resid_post", model.n_layers),), "last")

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {}

    def start(self, model: wb.Model) -> wb.State:
        return {"sum": torch.zeros(model.d_model, dtype=torch.float64), "n": torch.tensor(0)}

    def update(self, state: wb.State, captures: wb.Captures) -> wb.State:
        values = captures.stack("resid_post")[0]
        return {"sum": state["sum"] + values.sum(0), "n": state["n"] + len(values)}

    def merge(self, left: wb.State, right: wb.State) -> wb.State:
        return {name: left[name] + right[name] for name in left}

    def finish(self, state: wb.State) -> wb.Measured:
        return {"mean": wb.Named(("unit",), state["sum"] / state["n"], "1")}


@dataclass(frozen=True)
class LossOfNext(wb.Driving):
    """Log-probability of each prompt's best next token, by a forward of its own."""

    name: ClassVar[str] = "loss_of_next"
    title: ClassVar[str] = "Loss"
    citation: ClassVar[wb.Citation] = wb.Citation("", "")
    rows = StateNorm.rows
    figure = StateNorm.figure

    def coords(self, model: wb.Model) -> Mapping[str, Sequence[Any]]:
        return {}

    def drive(self, model: wb.Model, batch: wb.Batch) -> tuple[wb.Places, wb.Measured]:
        caught = model.capture(batch, ["logits"], "last")
        best = caught["logits", model.n_layers].log_softmax(-1).amax(-1)
        return caught.places, {"best": wb.Named(("place",), best, "nat")}


@contextmanager
def counted(hooked: wb.TorchModel) -> Iterator[list[int]]:
    """Rows of each forward in which block 1 really runs (a readout passes it over)."""
    rows: list[int] = []
    handle = hooked.anatomy.part(1, hooked.anatomy.family.attention).register_forward_hook(
        lambda m, a, out: rows.append(out[0].shape[0])
    )
    try:
        yield rows
    finally:
        handle.remove()


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_results_do_not_depend_on_batching(batch_size: int, padding: Any) -> None:
    hooked = model("gpt2", torch.float32)
    instrument = LogitLens(top_k=3)
    alone = instrument(hooked, TEXTS).data
    other = instrument(hooked, TEXTS, batch_size=batch_size, padding=padding).data
    assert (other.top_id == alone.top_id).all()
    for name in ("top_logprob", "entropy", "kl", "js"):
        np.testing.assert_allclose(other[name], alone[name], rtol=0, atol=1e-5)
    assert (other.prompt == alone.prompt).all()
    assert (other.position == alone.position).all()


@pytest.mark.parametrize(
    ("dtype", "atol"),
    # Atlas' logits reach 27: in float32 6e-5 is eighteen roundings of that, three a block.
    [(torch.float32, 6e-5), (torch.float64, 1e-11)],
)
def test_batching_and_order_on_the_bundled_model(dtype: torch.dtype, atol: float) -> None:
    atlas = wb.load(dtype=dtype)
    facts = list(wb.PromptSet.read(prompts_path("facts")))[:200]
    alone = LogitLens()(atlas, facts, batch_size=1).data
    order = np.random.default_rng(1).permutation(len(facts))
    whole = LogitLens()(atlas, [facts[i] for i in order], batch_size=64).data
    places = {
        (p, n): i
        for i, (p, n) in enumerate(zip(whole.prompt.values, whole.position.values, strict=True))
    }
    back = [places[key] for key in zip(alone.prompt.values, alone.position.values, strict=True)]
    for name in ("top_logprob", "entropy", "kl", "js", "target_logprob", "foil_logprob"):
        np.testing.assert_allclose(whole[name].isel(place=back), alone[name], rtol=0, atol=atol)


def test_order_of_results_follows_the_prompts() -> None:
    hooked = model("gpt2", torch.float32)
    prompts = [wb.Prompt(text, id=str(n)) for n, text in enumerate(TEXTS)]
    order = np.random.default_rng(0).permutation(len(prompts))
    whole = LogitLens()(hooked, prompts, batch_size=5).data
    shuffled = LogitLens()(hooked, [prompts[i] for i in order], batch_size=5).data
    assert list(dict.fromkeys(shuffled.prompt.values)) == [str(i) for i in order]
    for name in ("0", "17", "63"):
        np.testing.assert_allclose(
            shuffled.entropy.values[..., shuffled.prompt == name],
            whole.entropy.values[..., whole.prompt == name],
            atol=1e-5,
        )


def test_two_instruments_cost_one_forward_a_batch() -> None:
    hooked = model("gpt2", torch.float32)
    with counted(hooked) as rows:
        both = wb.measure(hooked, TEXTS, [LogitLens(), StateNorm(), MeanState()], batch_size=16)
    planned = wb.plan(hooked, TEXTS, [LogitLens(), StateNorm(), MeanState()], batch_size=16)
    assert len(rows) == len(planned.batches)
    assert sorted(rows) == sorted(len(batch) for batch in planned.batches)
    assert [r.instrument for r in both] == ["logit_lens", "state_norm", "mean_state"]
    np.testing.assert_allclose(
        both[1].data.norm, both[0].data.norm.sel(site="resid_post"), rtol=1e-6
    )


def test_readers_of_different_positions_share_the_forward() -> None:
    hooked = model("gpt2", torch.float32)
    with counted(hooked) as rows:
        lens, norm = wb.measure(
            hooked, TEXTS[:4], [LogitLens(positions="last"), StateNorm()], batch_size=4
        )
    assert len(rows) == len(wb.plan(hooked, TEXTS[:4], [StateNorm()], batch_size=4).batches)
    assert lens.data.sizes["place"] == 4
    assert norm.data.sizes["place"] == sum(len(t) for t in TEXTS[:4])


def test_driving_and_set_level_instruments() -> None:
    hooked = model("gpt2", torch.float32)
    lens, best, mean = wb.measure(
        hooked, TEXTS, [LogitLens(positions="last"), LossOfNext(), MeanState()], batch_size=7
    )
    top = lens.data.top_logprob.sel(site="resid_post", layer=3, k=1)
    np.testing.assert_allclose(best.data.best, top, atol=1e-5)
    states = [hooked.capture(t, [("resid_post", 3)], "last")["resid_post", 3][0] for t in TEXTS]
    np.testing.assert_allclose(mean.data["mean"], torch.stack(states).double().mean(0), atol=1e-5)


def test_out_of_memory_halves_the_batch_and_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    hooked = wb.load(hf_model("gpt2", torch.float32), tokenizer())
    expected = LogitLens()(hooked, TEXTS).data
    tried: list[int] = []
    read = hooked.read

    def scarce(batch: wb.Batch, *args: Any, **kwargs: Any) -> Any:
        tried.append(batch.ids.numel())
        if batch.ids.numel() > 200:
            raise torch.OutOfMemoryError("injected")
        return read(batch, *args, **kwargs)

    monkeypatch.setattr(hooked, "read", scarce)
    lens, mean = wb.measure(hooked, TEXTS, [LogitLens(), MeanState()])
    np.testing.assert_allclose(lens.data.entropy, expected.entropy, atol=1e-5)
    assert mean.data.sizes == {"unit": 16}
    assert tried[1] <= tried[0] // 2
    assert hooked.token_limit is not None
    first_run = len([size for size in tried if size > 200])
    tried.clear()
    LogitLens()(hooked, TEXTS)
    assert first_run > 0
    assert max(tried) <= 200


def test_a_single_prompt_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hooked = wb.load(hf_model("gpt2", torch.float32), tokenizer())

    def never(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ...")

    monkeypatch.setattr(hooked, "read", never)
    with pytest.raises(wb.ModelError, match="out of memory on a single prompt of 3 tokens"):
        LogitLens()(hooked, "abc")


def test_other_errors_are_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    hooked = wb.load(hf_model("gpt2", torch.float32), tokenizer())

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(hooked, "read", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        LogitLens()(hooked, TEXTS)


def test_cancel_stops_within_one_batch() -> None:
    hooked = model("gpt2", torch.float32)
    cancel = threading.Event()

    def stop_after_two(progress: wb.Progress) -> None:
        if progress.done >= 2 * min(map(len, TEXTS)) and len(rows) == 2:
            cancel.set()

    with counted(hooked) as rows, pytest.raises(wb.Cancelled, match="no result was made"):
        LogitLens()(hooked, TEXTS, batch_size=1, progress=stop_after_two, cancel=cancel)
    assert len(rows) == 2


def test_progress_counts_every_token_once() -> None:
    hooked = model("gpt2", torch.float32)
    seen: list[wb.Progress] = []
    LogitLens()(hooked, TEXTS, batch_size=10, progress=seen.append)
    total = sum(map(len, TEXTS))
    assert (seen[0].done, seen[-1].done, seen[0].total) == (0, total, total)
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    assert seen[0].seconds_left is None
    assert seen[-1].seconds_left == 0


def test_plan_states_the_cost() -> None:
    hooked = model("gpt2", torch.float32)
    planned = wb.plan(hooked, TEXTS, [LogitLens()], batch_size=8)
    assert sorted(i for batch in planned.batches for i in batch) == list(range(64))
    assert max(map(len, planned.batches)) == 8
    assert planned.tokens == sum(map(len, TEXTS))
    assert planned.block_tokens == planned.padded_tokens * 3
    assert planned.padded_tokens < 1.25 * planned.tokens
    assert "64 prompts in" in str(planned)


def test_a_plan_names_those_whose_own_passes_it_cannot_count() -> None:
    prompt = wb.Prompt(
        "The capital of France is", corrupted="The capital of Spain is", target=" Paris"
    )
    planned = wb.plan(wb.load(), prompt, [AttributionPatch(), LogitLens()])
    assert planned.uncounted == ("attribution_patch",)
    assert "not counted: what attribution_patch run beside one pass" in str(planned)
    assert "not counted" not in str(wb.plan(wb.load(), prompt, [LogitLens()]))


def test_long_and_short_prompts_do_not_share_a_batch() -> None:
    planned = wb.plan(model("gpt2"), ["x" * 60, "x" * 5, "x" * 59, "x" * 6], [LogitLens()])
    assert [sorted(batch) for batch in planned.batches] == [[0, 2], [1, 3]]


def test_bad_calls_fail_before_any_work() -> None:
    hooked = model("gpt2")
    with counted(hooked) as rows:
        with pytest.raises(wb.PromptError, match="64; shorten"):
            LogitLens()(hooked, ["fine", "x" * 65])
        with pytest.raises(wb.TargetError, match="2 tokens"):
            LogitLens()(hooked, ["fine", wb.Prompt("x", target="ab")])
        with pytest.raises(wb.SettingError, match="batch_size is 0"):
            LogitLens()(hooked, "x", batch_size=0)
        with pytest.raises(wb.SettingError, match="no instruments"):
            wb.measure(hooked, "x", [])
        with pytest.raises(wb.SettingError, match="the vocabulary has 257"):
            LogitLens(top_k=258)(hooked, "x")
        with pytest.raises(wb.SettingError, match="padding 'up'"):
            LogitLens()(hooked, "x", padding="up")
    assert not rows


def test_shards_of_a_set_merge_to_the_whole() -> None:
    hooked = model("gpt2")
    prompts = wb.PromptSet.of(TEXTS)
    instruments = [StateNorm(), MeanState()]
    whole_norm, whole_mean = wb.measure(hooked, prompts, instruments)
    shards = [prompts.subset(range(40, 64)), prompts.subset(range(40))]
    gathered = [gather(hooked, shard, instruments) for shard in shards]
    left, right = (norm.result().data for norm, _ in gathered)
    joined = xr.concat([right, left], "place")
    assert joined.prompt.values.tolist() == whole_norm.data.prompt.values.tolist()
    np.testing.assert_allclose(joined.norm, whole_norm.data.norm, rtol=1e-5)
    states = [mean.state for _, mean in gathered]
    assert states[0] is not None
    assert states[1] is not None
    merged = finished(MeanState(), hooked, MeanState().merge(*states))
    np.testing.assert_allclose(merged.data["mean"], whole_mean.data["mean"], rtol=1e-5)
    assert merged.provenance["prompts"] == []

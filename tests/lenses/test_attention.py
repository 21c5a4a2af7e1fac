"""Attention's scores by their definitions, one place at a time, and what the streamed pass costs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from lenses import Attention
from lenses.attention.instrument import SITES
from tests.tiny import LAYERS, OWN_CODE, model
from workbench.models.batch import DecoderBatch

TEXTS = ["abcabcab", "aab", "x"]
# Families that differ in mask (windows, none), in grouped keys, and in rows that sum to less than 1.
DIFFERENT = ["gpt2", "llama", "mistral", "gemma2", "gpt_oss", "bert"]
ATOL = 1e-6  # scores are float64 sums of at most 64 weights; the result keeps float64


def by_definition(row: np.ndarray, ids: list[int], query: int, seen: list[int]) -> dict[str, float]:
    """Scores of one head at one query, from its weights on the keys of its prompt."""
    if len(seen) < 2:
        return {}
    kinds = {
        "sink": [k for k in seen if k == 0],
        "previous": [k for k in seen if k == query - 1],
        "induction": [k for k in seen if 0 < k < query and ids[k - 1] == ids[query]],
        "duplicate": [k for k in seen if k < query and ids[k] == ids[query]],
    }
    found = {name: sum(row[k] for k in keys) for name, keys in kinds.items() if keys}
    found |= {f"{name}_chance": len(keys) / len(seen) for name, keys in kinds.items() if keys}
    p = row / row.sum()
    found["entropy"] = -sum(p[k] * math.log(p[k]) for k in seen if p[k] > 0)
    found["entropy_chance"] = math.log(len(seen))
    found["distance"] = sum(p[k] * abs(query - k) for k in seen)
    found["distance_chance"] = sum(abs(query - k) for k in seen) / len(seen)
    return found


@pytest.mark.parametrize("family", DIFFERENT)
def test_scores_are_their_definitions(family: str) -> None:
    hooked = model(family)
    data = Attention()(hooked, TEXTS).data
    for number, text in enumerate(TEXTS):
        ids = list(hooked.encode(wb.Prompt(text)).ids)
        here = data.isel(place=np.flatnonzero(data.prompt.values == number))
        patterns = hooked.capture(text, ["pattern"]).stack("pattern").numpy()
        for layer, query, head in np.ndindex(LAYERS, len(ids), hooked.n_heads):
            row = patterns[layer, query, head]
            # What the mask hides has weight 0; softmax gives everything else more, in float64.
            seen = np.flatnonzero(row > 0).tolist()
            found = here.isel(layer=layer, place=query)
            assert int(found.visible_keys) == len(seen)
            expected = by_definition(row, ids, query, seen)
            for name in ("sink", "previous", "induction", "duplicate", "entropy", "distance"):
                value = float(found[name][head])
                assert value == pytest.approx(expected.get(name, math.nan), abs=ATOL, nan_ok=True)
                if name in expected:
                    chance = float(found[f"{name}_chance"])
                    assert chance == pytest.approx(expected[f"{name}_chance"], abs=ATOL)


@pytest.mark.parametrize("family", ["mixtral", "gemma3", "phi3", "qwen3_moe", "cohere", "opt"])
def test_visible_keys_are_those_with_weight(family: str) -> None:
    data = Attention(patterns=True)(model(family), "abcabcab").data
    seen = (data.pattern > 0).sum("key").isel(pattern_head=0)
    assert (seen.values == data.visible_keys.values).all()


def test_a_few_places_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Attention()(model("mistral"), TEXTS).data
    monkeypatch.setattr("lenses.attention.scores.AT_ONCE", 40)  # two places, then one
    parts = Attention()(model("mistral"), TEXTS).data
    for name in whole.data_vars:
        np.testing.assert_allclose(parts[name], whole[name], rtol=0, atol=1e-14)


def test_the_top_sink_draws_most_of_all_attention() -> None:
    hooked = model("llama")
    data = Attention()(hooked, TEXTS[0]).data
    drawn = hooked.capture(TEXTS[0], ["pattern"]).stack("pattern")[:, 1:].mean(1)  # 0 has no choice
    np.testing.assert_allclose(data.top_sink[..., 0], drawn.amax(-1), atol=ATOL)
    assert (data.top_sink_position[..., 0].values == drawn.argmax(-1).numpy()).all()
    uniform = sum(1 / (q + 1) for q in range(1, drawn.shape[-1])) / (drawn.shape[-1] - 1)
    assert float(data.top_sink_chance[0, 0]) == pytest.approx(uniform)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bert"])
def test_padding_and_batches_change_nothing(family: str) -> None:
    one = [Attention(patterns=True)(model(family), text).data for text in TEXTS]
    for padding in ("left", "right"):
        both = Attention(patterns=True)(model(family), TEXTS, padding=padding).data
        apart = Attention(patterns=True)(model(family), TEXTS, batch_size=1).data
        for number, alone in enumerate(one):
            rows = np.flatnonzero(both.prompt.values == number)
            for data in (both.isel(place=rows), apart.isel(place=rows)):
                for name in ("induction", "entropy", "top_sink", "pattern"):
                    found = data[name].values
                    found = found[..., : alone.sizes["key"]] if name == "pattern" else found
                    np.testing.assert_allclose(found, alone[name].values, atol=1e-12)


def test_streamed_patterns_are_those_of_one_pass_and_each_block_runs_once() -> None:
    hooked = model("gpt2")
    runs: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *_, i=i: runs.append(i))
        for i, block in enumerate(hooked.anatomy.blocks)
    ]
    attention = [
        b.attn.register_forward_hook(lambda *_: runs.append(-1)) for b in hooked.hf.transformer.h
    ]
    try:
        data = Attention(patterns=True, layers=[1, 3], heads=1)(hooked, TEXTS[0]).data
    finally:
        for hook in hooks + attention:
            hook.remove()
    assert runs.count(-1) == LAYERS  # attention, of blocks that are not passed over
    whole = hooked.capture(TEXTS[0], ["pattern"]).stack("pattern")[[0, 2], :, 1:2].transpose(1, 2)
    np.testing.assert_allclose(data.pattern, whole, atol=1e-12)
    assert data.pattern_layer.values.tolist() == [1, 3]
    assert data.pattern_head.values.tolist() == [1]


@pytest.mark.parametrize("kind", ["encoder", "cross"])
def test_the_attentions_of_two_stacks(kind: str) -> None:
    hooked = model("t5")
    data = Attention(kind=kind, patterns=True)(hooked, "abcab").data  # type: ignore[arg-type]
    site = {"encoder": "encoder.pattern", "cross": "cross_pattern"}[kind]
    assert site.endswith(SITES[kind])
    whole = hooked.capture("abcab", [site])
    layers = range(1, data.sizes["layer"] + 1)
    expected = torch.stack([whole[site, layer] for layer in layers]).transpose(1, 2)
    np.testing.assert_allclose(data.pattern, expected, atol=1e-12)
    assert data.induction.isnull().all() == (kind == "cross")
    assert float(data.sink_chance[0, -1]) == pytest.approx(1 / data.sizes["key"])
    assert isinstance(whole.batch, DecoderBatch) == (kind == "cross")


@pytest.mark.parametrize("family", OWN_CODE[:4])
def test_families_with_code_of_their_own_are_refused_by_name(family: str) -> None:
    with pytest.raises(wb.UnsupportedError, match="has no pattern: it computes attention in its"):
        Attention()(model(family), TEXTS[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "sideways"}, "kind is 'sideways': expected one of self, encoder, cross"),
        ({"layers": [0]}, r"layers \[0\]: expected some of 1..3"),
        ({"heads": "2,x"}, "heads is '2,x': expected all, or whole numbers"),
        ({"heads": 2}, r"heads \[2\]: expected some of 0..1"),
        ({"kind": "cross"}, "is one stack, so it has no cross attention: use kind=self"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(wb.WorkbenchError, match=message):
        Attention(**settings)(model("gpt2"), TEXTS[0])


def test_patterns_that_are_too_large_are_refused_and_scores_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lenses.attention.instrument.MOST_KEPT", 1000)
    with pytest.raises(
        wb.SettingError, match="6 heads over a prompt of 8 tokens take .* set layers="
    ):
        Attention(patterns=True)(model("gpt2"), TEXTS[0])
    kept = Attention(patterns=True, layers=1, heads=0, positions="last")(model("gpt2"), TEXTS[0])
    assert kept.data.sizes["pattern_head"] == 1
    assert Attention()(model("gpt2"), TEXTS[0]).data.sizes["place"] == 8


def test_rows_say_chance_and_how_many_places_and_leave_out_what_is_not_defined() -> None:
    rows = Attention()(model("gpt2"), ["abcab", "xyz"]).rows()
    assert len(rows) == 2 * LAYERS * 2
    assert [rows[0][key] for key in ("prompt", "layer", "head")] == [0, 1, 0]
    assert rows[0]["induction_places"] == 2
    assert rows[0]["induction_chance"] == pytest.approx((1 / 4 + 1 / 5) / 2)
    other = rows[-1]
    assert [other[f"induction{s}"] for s in ("", "_chance", "_places")] == [None, None, 0]
    assert other["previous_places"] == 2


def test_atlas_has_a_head_far_above_chance_on_repeated_tokens() -> None:
    prompts = wb.PromptSet.read("workbench/atlas/prompts/induction.jsonl")[:8]
    data = Attention()(wb.load(), prompts).data
    best = data.induction.mean("place").max()
    assert float(best) > 5 * float(data.induction_chance.where(data.induction.notnull()).mean())


def test_a_target_of_several_tokens_does_not_concern_it() -> None:
    text = wb.Prompt("abcab", target="de")
    found, plain = (Attention()(model("gpt2"), prompt).data for prompt in (text, "abcab"))
    assert found["sink"].equals(plain["sink"])

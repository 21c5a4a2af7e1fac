"""The two instruments of circuits: what they give, say and refuse."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from probes import AttributionPatch, EdgeAttribution, SpanTrace
from tests.tiny import hf_model, model
from workbench.figures import Heat, Lines

PAIR = wb.Prompt("abcdefg", target="h", foil="x", corrupted="abXdeYg", id="pair")
OTHER = wb.Prompt("klmno", target="p", foil="x", corrupted="kXmno", id="other")
NOISY = wb.Prompt("abcdefg", target="h", foil="x", subject="cd", id="noisy")
LONG = wb.Prompt("abcdefg", target="hij", subject="cd", id="long")
ALL = ("resid_post", "mlp_out", "attn_out", "z")


def patch(**settings: Any) -> AttributionPatch:
    return AttributionPatch(**{"sites": ALL, "samples": 2, **settings})


def test_effects_lie_on_named_axes_and_have_rows() -> None:
    found = patch(exact=True)(model("gpt2"), [PAIR, OTHER])
    data = found.data
    assert dict(data["effect"].sizes) == {"site": 3, "layer": 4, "place": 12}
    assert dict(data["head_effect"].sizes) == {"layer": 4, "head": 2, "place": 12}
    assert data["effect"].sel(site="mlp_out", layer=0).isnull().all()
    assert data["effect"].sel(site="resid_post").notnull().all()
    assert data["stderr"].isnull().all()  # of a single corrupted text
    rows = found.rows()
    assert len(rows) == 12 * (4 + 3 + 3 + 3 * 2)
    row = next(r for r in rows if (r["site"], r["layer"], r["position"]) == ("mlp_out", 2, 4))
    cell = data["effect"].sel(site="mlp_out", layer=2).isel(place=4)
    assert row["effect"] == float(cell)
    assert row["normalised"] == pytest.approx(float(cell) / (row["clean"] - row["corrupted"]))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_exact_cells_are_the_known_ones() -> None:
    """The last state of the clean run is all of the effect; by the gradient it is not."""
    data = patch(exact=True)(model("gpt2"), PAIR).data
    whole = float(data["clean"][0] - data["corrupted"][0])
    last = data.sel(site="resid_post", layer=3).isel(place=-1)
    assert float(last["exact_effect"]) == pytest.approx(whole, abs=1e-10)
    assert abs(float(last["effect"]) - whole) > 1e-3 * abs(whole)
    assert not data["exact_effect"].sel(site="resid_post").isel(place=slice(0, 2)).any()


def test_the_rank_correlation_is_of_the_cells_that_can_have_an_effect() -> None:
    from scipy.stats import spearmanr

    data = patch(exact=True)(model("gpt2"), NOISY).data
    for site in data["site"].values:
        one = data.sel(site=site)
        near, true = (one[name].values for name in ("effect", "exact_effect"))
        free = np.isfinite(near) & (near != 0)
        expected = spearmanr(near[free], true[free]).statistic
        assert float(one["rank_correlation"][0]) == pytest.approx(expected, abs=1e-12)
        assert free.sum() < np.isfinite(near).sum()


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_effects_that_are_the_same_but_for_rounding_are_not_ranked(direction: Any) -> None:
    """Where the corruption is at the last token, each of its states gives the whole effect."""
    prompt = wb.Prompt("abcdefg", target="h", foil="x", corrupted="abcdefX")
    found = patch(exact=True, direction=direction)(model("gptj", torch.float32), prompt)
    states = found.data["exact_effect"].sel(site="resid_post").values[:, -1]
    assert len(set(states.tolist())) > 1  # rounding
    assert np.allclose(states, states[0], rtol=1e-4)
    ranks = found.data["rank_correlation"].isel(place=0)
    assert np.isnan(float(ranks.sel(site="resid_post")))
    assert np.isfinite(float(ranks.sel(site="mlp_out")))
    facts = dict(AttributionPatch.facts(found.data, layer=1))
    assert "rank" not in facts["state, approximate effect"]
    assert "rank correlation" in facts["MLP, approximate effect"]


@pytest.mark.parametrize("kind", [patch, EdgeAttribution])
def test_batches_and_padding_change_nothing(kind: Any) -> None:
    it = kind(samples=2)
    together = it(model("gpt2"), [PAIR, OTHER], padding="left").data
    alone = [it(model("gpt2"), one).data for one in (PAIR, OTHER)]
    for name in ("effect", "score"):
        if name in together:
            each = np.concatenate([one[name].transpose("place", ...).values for one in alone])
            found = together[name].transpose("place", ...).values
            np.testing.assert_allclose(found, each, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", [patch, EdgeAttribution])
def test_a_target_of_several_tokens_and_noise(kind: Any) -> None:
    data = kind(samples=3, steps=2)(model("llama"), LONG).data
    name = "effect" if kind is patch else "score"
    assert data[name].attrs["unit"] == "nat"
    size, error = abs(data[name]), data["stderr"]
    assert float(error.max()) > 0
    assert float((error / size).median()) < 2  # noise that the mean stands out of


def test_edges_have_ranks_and_the_curve_its_ends() -> None:
    found = EdgeAttribution()(model("gpt2"), PAIR)
    rows = found.rows()
    edges = [row for row in rows if row["sender"]]
    # two heads: q, k and v of each from all below the block; its MLP from the block's heads too
    expected = sum(6 * below + below + 2 for below in (1, 4, 7)) + 10
    assert len(edges) == expected
    assert [row["rank"] for row in edges] == list(range(1, expected + 1))
    sizes = [abs(row["score"]) for row in edges]
    assert sizes == sorted(sizes, reverse=True)
    curve = {
        (row["edges"], row["control"]): row["faithfulness"] for row in rows if not row["sender"]
    }
    for control in (None, 0, 3):
        assert curve[0, control] == pytest.approx(0, abs=1e-10)
        assert curve[expected, control] == pytest.approx(1, abs=1e-10)


def test_everything_can_be_drawn_and_said() -> None:
    nasty = wb.Prompt("ab<b>fg", target="h", foil="x", corrupted="aX<b>Yg", id="<i>x</i>")
    for it in (patch(exact=True), patch(), patch(sites=("z",)), EdgeAttribution()):
        found = it(model("gpt2"), [nasty, PAIR])
        for theme in ("light", "dark"):
            drawn = found.plot(theme=theme, prompt="<i>x</i>", selected=(2, 3)).to_json()
            assert "<b>fg" not in drawn
            assert "<i>x" not in drawn
        assert "approximat" in found.data.attrs["provenance"]
        assert "approximat" in found.plot().layout.annotations[0].text
        panels = type(it).panels(found.data, position=3)
        assert all(isinstance(panel, Lines | Heat) for panel in panels)
        assert panels
    facts = AttributionPatch.facts(patch(exact=True)(model("gpt2"), PAIR).data, layer=2, position=4)
    assert len(facts) == 3
    assert all("exact" in value and "rank correlation" in value for _, value in facts)
    told = EdgeAttribution.facts(EdgeAttribution(sizes=(0,))(model("gpt2"), PAIR).data, layer=2)
    assert [name.split(",")[0] for name, _ in told] == [
        "largest edges out of layer 2",
        "largest edges into layer 2",
    ]


def test_sections_are_made_of_rows() -> None:
    import polars as pl

    for it in (patch(exact=True), patch(), EdgeAttribution(), SpanTrace()):
        rows = pl.DataFrame(it(model("gpt2"), [PAIR, OTHER]).rows(), infer_schema_length=None)
        section = type(it).section(rows.lazy())
        assert section.plots
        assert ("exact" if isinstance(it, SpanTrace) else "approximation") in section.remarks[0]
    assert not AttributionPatch.section(
        pl.DataFrame(patch()(model("gpt2"), PAIR).rows(), infer_schema_length=None).lazy()
    ).headlines


def test_a_total_effect_of_about_nothing_has_no_shares() -> None:
    same = wb.Prompt("abcdefg", target="h", foil="x", subject="cd")
    it = EdgeAttribution(noise=1e-9, samples=1, sizes=(0, 5))
    assert it(model("gpt2"), same).data["faithfulness"].isnull().all()
    rows = patch(noise=1e-9, samples=1)(model("gpt2"), same).rows()
    assert all(row["normalised"] is None for row in rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "probability"}, "metric is probability"),
        ({"metric": "accuracy"}, "expected one of auto, logprob"),
        ({"direction": "up"}, "expected one of denoising, noising"),
        ({"steps": -1}, "steps is -1"),
        ({"noise": 0}, "noise is 0"),
        ({"metric": "kl", "direction": "noising"}, "gradient is 0 everywhere"),
    ],
)
@pytest.mark.parametrize("kind", [AttributionPatch, EdgeAttribution])
def test_settings_are_refused_by_name(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        kind(**settings)


def test_prompts_and_models_are_refused_by_name() -> None:
    gpt2 = model("gpt2")
    for prompt, error, message in (
        (wb.Prompt("abc", target="d"), wb.PromptError, "has no subject"),
        (wb.Prompt("abc", subject="b"), wb.TargetError, "has no target"),
        (wb.Prompt("abc", target="d", corrupted="abcd"), wb.PromptError, "expected as many"),
        (wb.Prompt("abc", target="d", corrupted="abc"), wb.PromptError, "prompt's own tokens"),
    ):
        for it in (patch(), EdgeAttribution()):
            with pytest.raises(error, match=message):
                it(gpt2, prompt)
    with pytest.raises(wb.SettingError, match="sites is 'q'"):
        patch(sites="q")
    with pytest.raises(wb.SettingError, match="has 100 edges"):
        EdgeAttribution(sizes=(200,))(gpt2, PAIR)
    masked = wb.Prompt("abc", target="d", corrupted="abX")
    with pytest.raises(wb.UnsupportedError, match="no causal decoder"):
        patch()(model("bert"), masked)
    with pytest.raises(wb.UnsupportedError, match="goes through a norm"):
        EdgeAttribution()(model("gemma2"), PAIR)


def test_long_work_can_be_cancelled() -> None:
    class Stop:
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 2

    for it in (patch(exact=True), EdgeAttribution()):
        with pytest.raises(wb.Cancelled):
            it(model("gpt2"), PAIR, cancel=Stop())


@pytest.mark.parametrize("engine", ["transformer_lens", "nnsight"])
def test_other_engines_agree_or_refuse(engine: str) -> None:
    plain = model("gpt2")
    other = wb.load(hf_model("gpt2"), plain.tokenizer, engine=engine)
    sites = ("resid_post", "mlp_out", "attn_out")
    here, there = (patch(sites=sites, exact=True)(it, PAIR).data for it in (plain, other))
    for name in ("effect", "exact_effect"):
        np.testing.assert_allclose(there[name].values, here[name].values, atol=1e-10, rtol=0)
    assert math.isfinite(float(there["rank_correlation"][0, 0]))
    with pytest.raises(wb.UnsupportedError, match="edge_attribution: "):
        EdgeAttribution()(other, PAIR)


def test_edges_through_transformer_lens_where_it_keeps_the_maps() -> None:
    plain = model("llama")
    other = wb.load(hf_model("llama"), plain.tokenizer, engine="transformer_lens")
    found, expected = (EdgeAttribution()(it, PAIR).data for it in (other, plain))
    for name in ("score", "faithfulness"):  # norms in float32
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [AttributionPatch, EdgeAttribution, SpanTrace])
def test_what_is_settled_stays_the_very_same(kind: Any) -> None:
    it = kind().settled(model("gpt2"), [NOISY])
    assert it.noise_std is not None
    assert (it.metric, it.corruption) == ("logit_difference", "noise")
    assert it.settled(model("gpt2"), [NOISY, PAIR]) is it
    assert kind().settled(model("gpt2"), [LONG]).metric == "logprob"

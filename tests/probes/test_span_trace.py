"""Coarse to fine: spans are exact, split where they are large, and nothing between is made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import workbench as wb
from probes import CausalTrace, SpanTrace
from probes.causal.cells import Put
from probes.causal.contrast import Contrast
from probes.causal.effects import effects
from probes.circuits.spans import grid_block_tokens
from tests.tiny import hf_model, model
from workbench.models.sites import Site, site_layers

SITES = ("resid_post", "mlp_out", "attn_out")
PROMPT = wb.Prompt("abcdefghijklmnop", target="q", foil="x", corrupted="abXdefghiYklmnop")
NOISY = wb.Prompt("abcdefghijk", target="q", foil="x", subject="cd")


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_without_a_threshold_it_is_the_whole_grid(direction: Any) -> None:
    found = SpanTrace(sites=SITES, share=0, direction=direction)(model("gpt2"), PROMPT).data
    trace = CausalTrace(layers=(0, 1, 2, 3), direction=direction, window=1)(model("gpt2"), PROMPT)
    expected = trace.data["effect"].transpose("site", "layer", "place")
    np.testing.assert_allclose(found["effect"].values, expected.values, atol=1e-12, rtol=0)
    for end in ("span_first", "span_last"):
        inside = found[end].sel(site="resid_post").values
        assert (inside == found["position"].values).all()


def test_a_span_of_all_tokens_is_the_whole_effect() -> None:
    data = SpanTrace(spans=1, share=1e9)(model("gpt2"), PROMPT).data
    total = float(data["clean"][0] - data["corrupted"][0])
    spans = data["span_effect"].sel(site="resid_post").values[:, 2:]
    np.testing.assert_allclose(spans, total, atol=1e-10, rtol=0)
    assert data["effect"].sel(site="resid_post")[:, 2:].isnull().all()
    assert (
        not data["effect"].sel(site="resid_post")[:, :2].any()
    )  # before the first corrupted token


def test_large_spans_are_split_and_small_ones_are_not() -> None:
    found = SpanTrace(sites=SITES, spans=3, share=0.2)(model("gpt2"), PROMPT)
    data, rows = found.data, found.rows()
    total = abs(float(data["clean"][0] - data["corrupted"][0]))
    several = [row for row in rows if not row["single"]]
    assert several
    assert any(row["single"] and row["position"] >= 2 for row in rows)
    assert all(abs(row["effect"]) < 0.2 * total for row in several)
    for site in SITES:
        for layer in site_layers(site, 3):
            line = [row for row in rows if (row["site"], row["layer"]) == (site, layer)]
            covered = [p for row in line for p in range(row["position"], row["last"] + 1)]
            assert covered == list(range(16))
    single = data["span_first"] == data["span_last"]
    there = data["span_first"] >= 0
    assert (data["effect"].notnull() == (single & there)).all()


def test_a_span_is_what_patching_it_gives() -> None:
    hooked = model("llama")
    row = next(r for r in SpanTrace(spans=3, share=1e9)(hooked, PROMPT).rows() if not r["single"])
    contrast = Contrast.by_text(hooked, [hooked.encode(PROMPT)], "span_trace")
    columns = tuple(range(row["position"], row["last"] + 1))
    cell = (Put(Site(row["site"], row["layer"]), columns),)
    naive = effects(hooked, contrast, [cell], metric="logit_difference", algorithm="naive")
    expected = float((naive.patched[0, 0] - naive.corrupted[0]).mean())
    assert row["effect"] == pytest.approx(expected, abs=1e-5)  # norms in float32


@pytest.mark.parametrize("engine", ["torch", "nnsight"])
@pytest.mark.parametrize("prompt", [PROMPT, NOISY], ids=["text", "noise"])
def test_the_work_of_the_whole_grid_is_counted(engine: str, prompt: wb.Prompt) -> None:
    plain = model("gpt2")
    hooked = (
        plain if engine == "torch" else wb.load(hf_model("gpt2"), plain.tokenizer, engine=engine)
    )
    it = SpanTrace(samples=2).settled(hooked, [prompt])
    contrast, end = it.contrast(hooked, hooked.encode(prompt)), len(prompt.text)
    sites = [Site(name, layer) for name in SITES for layer in site_layers(name, 3)]
    cells = [(Put(site, (column,)),) for site in sites for column in range(contrast.same, end)]
    found = effects(hooked, contrast, cells, metric="logit_difference")
    assert grid_block_tokens(hooked, contrast, sites, end) == found.block_tokens


def test_a_long_prompt_takes_less_than_its_grid() -> None:
    prompt = wb.Prompt("ab" * 24, target="q", foil="x", corrupted="Xb" + "ab" * 23)
    data = SpanTrace(spans=6, share=0.3)(model("gpt2"), prompt).data
    assert int(data["block_tokens"][0]) < 0.5 * int(data["grid_block_tokens"][0])


def test_it_is_drawn_with_its_spans_framed() -> None:
    found = SpanTrace(sites=SITES, spans=3, share=0.2)(model("gpt2"), [PROMPT])
    drawn = found.plot(selected=(2, 4))
    spans = sum(not row["single"] for row in found.rows())
    assert len(drawn.layout.shapes) == spans + len(SITES)  # and the selected cell in each
    assert "patched only together" in drawn.layout.annotations[0].text
    assert SpanTrace.panels(found.data)
    assert SpanTrace.facts(found.data, layer=2, position=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spans": 0}, "spans is 0"),
        ({"share": -1}, "share is -1"),
        ({"sites": "z"}, "sites is 'z'"),
    ],
)
def test_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        SpanTrace(**settings)


def test_models_are_refused_by_name() -> None:
    with pytest.raises(wb.UnsupportedError, match="no causal decoder"):
        SpanTrace()(model("bert"), wb.Prompt("abc", target="d", corrupted="abX"))

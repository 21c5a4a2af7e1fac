"""Entropy of attention and its effective temperature: definitions, inverses, controls, growth."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

import workbench as wb
from probes import AttentionEntropy
from probes.attention_entropy.growth import by_prompt, slopes
from probes.attention_entropy.inversion import effective_beta, entropy, entropy_slope
from tests.tiny import LAYERS, model

TEXTS = ["abcabcabab", "aab", "x"]
# Families that differ in mask (windows, none), in grouped keys, and in rows that sum to less than 1.
EPS = torch.finfo(torch.float64).eps
# What the order of sums leaves: blocks of five products each, of at most 64 terms of order 1.
ROUNDING = LAYERS * 5 * 64 * EPS
DIFFERENT = ["gpt2", "mistral", "gemma3", "gpt_oss", "bert"]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_slope_is_that_of_autograd() -> None:
    """dH/dbeta = -beta Var_p(s), with some keys hidden."""
    scores, beta = drawn(5, 9), drawn(5).abs().requires_grad_()
    seen = torch.ones(5, 9, dtype=torch.bool)
    seen[1:, 6:] = False
    (slope,) = torch.autograd.grad(entropy(scores, beta, seen).sum(), beta)
    # sums of nine float64 terms of order 1
    torch.testing.assert_close(
        slope, entropy_slope(scores, beta.detach(), seen), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("spread", [1e-4, 1.0, 1e4])
def test_beta_is_found_from_the_entropy(spread: float) -> None:
    """Whatever the unit of the scores, and whatever their offset; hidden keys have no say."""
    scores = spread * (drawn(40, 12) + 7)
    beta = torch.logspace(-2, 1, 40, dtype=torch.float64)
    seen = torch.ones(40, 12, dtype=torch.bool)
    seen[:, 10:] = False
    found = effective_beta(scores, entropy(scores, beta / spread, seen), seen) * spread
    # H has an error of a few eps ln n, which moves beta by that over |dH/dbeta|: 1e-13 over the slope
    # (beta Var, 1e-2 at the least here but where H is flat at large beta)
    slope = entropy_slope(scores / spread, beta, seen).abs()
    assert ((found - beta).abs() <= 1e-13 / slope + 1e-13 * beta).all()
    scores[:, 10:] = 1e9
    again = effective_beta(scores, entropy(scores, beta / spread, seen), seen) * spread
    assert torch.equal(again, found)


def test_what_no_beta_gives_is_absent() -> None:
    scores = torch.tensor([1.0, 1.0, 0.0, -3.0], dtype=torch.float64)
    seen = torch.ones(4, dtype=torch.bool)
    asked = [math.log(4), math.log(2) + 1e-9, math.log(2), 0.1, math.nan]
    asked_for = torch.tensor(asked, dtype=torch.float64)
    found = effective_beta(scores, asked_for, seen).tolist()
    assert found[0] == 0
    assert found[1] > 10  # two keys tie: the entropy comes down to ln 2 as beta grows
    assert all(math.isnan(value) for value in found[2:])


def test_slopes_of_known_entropies() -> None:
    n = np.arange(1, 40)
    known = np.stack([np.log(n), np.full(len(n), 0.7), 0.4 * np.log(n) + 2])
    # each entropy is a few eps, over a spread of ln n of about 1
    np.testing.assert_allclose(slopes(known, n), [1, 0, 0.4], rtol=0, atol=1e-13)
    assert np.isnan(slopes(known[:, :9], n[:9])).all()  # six queries see four keys or more
    assert np.isnan(slopes(known, np.full(len(n), 30))).all()  # a window, or an encoder


@pytest.mark.parametrize("family", DIFFERENT)
def test_entropies_are_their_definitions(family: str) -> None:
    """Key by key, over what has weight: what the mask hides has 0, softmax gives the rest more."""
    hooked = model(family)
    data = AttentionEntropy()(hooked, TEXTS, padding="left").data
    for number, text in enumerate(TEXTS):
        here = data.isel(place=np.flatnonzero(data.prompt.values == number))
        captured = hooked.capture(text, ["pattern", "resid_post"])
        patterns, states = captured.stack("pattern"), captured.stack("resid_post")
        queries = patterns.shape[1]
        assert here.sizes["place"] == queries
        for layer, query, head in np.ndindex(LAYERS, queries, hooked.n_heads):
            row, one = patterns[layer, query, head], here.isel(layer=layer, place=query)
            keys = torch.nonzero(row > 0)[:, 0]
            assert int(one.visible_keys) == len(keys)
            if len(keys) < 2:
                assert math.isnan(float(one.entropy[head]))
                continue
            p = row[keys] / row.sum()
            value = float(one.entropy[head])
            assert value == pytest.approx(float(-(p * p.log()).sum()), abs=ROUNDING)
            assert float(one.entropy_share[head]) == pytest.approx(value / math.log(len(keys)))
            expected = float(row[0]) if row[0] > 0 else math.nan
            assert float(one.sink[head]) == pytest.approx(expected, nan_ok=True, abs=1e-14)
            beta = one.effective_beta[head].values
            if not np.isnan(beta):
                x = states[layer][[query, *keys.tolist()]]
                cosine = torch.nn.functional.cosine_similarity(x[:1], x[1:])
                again = entropy(cosine, torch.tensor(beta), torch.ones(len(keys), dtype=torch.bool))
                # Its inverse, but that scores beta x cosine are rounded by beta times as much.
                assert float(again) == pytest.approx(value, abs=(1 + float(beta)) * ROUNDING)


def test_batching_and_padding_change_nothing(tmp_path: Path) -> None:
    hooked = model("mistral")
    whole = AttentionEntropy(twin=False)(hooked, TEXTS).data
    single = AttentionEntropy(twin=False)(hooked, TEXTS, batch_size=1, padding="left").data
    for name in whole.data_vars:
        # beta: (1 + beta) times the rounding of H, over |dH/dbeta|; at most 32, at least 0.009 here
        atol = (1 + 32) * ROUNDING / 0.009 if name == "effective_beta" else ROUNDING
        np.testing.assert_allclose(single[name], whole[name], rtol=0, atol=atol)
    store = wb.capture(hooked, TEXTS[:1], sites="resid_post", out=tmp_path)
    with pytest.raises(wb.WorkbenchError, match="pattern, layer 1 was not stored"):
        wb.measure(store, [AttentionEntropy()])


def test_uniform_attention_is_its_own_control() -> None:
    """Queries and keys of zero: every head is uniform, in the twin's place too."""
    from tests.tiny import hf_model, tokenizer_of

    hf = hf_model("gpt2")
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_attn.weight[:, :32] = 0
            block.attn.c_attn.bias[:32] = 0
    data = AttentionEntropy()(wb.load(hf, tokenizer_of("gpt2")), "abcabcabcabc").data
    sums = 12 * EPS  # of twelve keys, or of twelve queries
    np.testing.assert_allclose(data.entropy_share[..., 1:], 1, rtol=0, atol=sums)
    np.testing.assert_allclose(data.sink[:, 0, 1:], data.sink_uniform[:, 1:], rtol=0, atol=sums)
    np.testing.assert_allclose(data.top_sink[:, 0], data.top_sink_uniform, rtol=0, atol=sums)
    # x = ln n less its mean over nine queries, n from 4: sum |x| / sum x^2 below 3, of H up to ln 12
    np.testing.assert_allclose(by_prompt(data), 1, rtol=0, atol=3 * math.log(12) * sums)
    # rounding leaves H some eps below ln n, where H is ln n - beta^2 Var / 2: measured, 3e-7
    assert float(data.effective_beta[..., 1:].max()) < 1e-5
    assert float(data.entropy_twin[:, :, 1:].min()) > 0


def test_rows_figure_panels_facts_and_section() -> None:
    hooked = model("gpt2")
    result = AttentionEntropy(seed=1)(hooked, ["abcabcabcabca", "xyxyxyxyxyxyx<b>"])
    rows = result.rows()
    assert len(rows) == 2 * LAYERS * hooked.n_heads
    first = rows[0]
    assert first["effective_temperature"] == pytest.approx(1 / first["effective_beta"])
    assert {row["growth"] is None for row in rows} == {False}
    counts = ("queries", "beta_queries", "sink_queries")
    assert {tuple(row[name] for name in counts) for row in rows} == {(12,) * 3, (15,) * 3}
    fewer = result.data.copy(deep=True)
    fewer["effective_beta"][0, 0, 1:4] = np.nan  # as where states tie
    first = next(AttentionEntropy.rows(fewer))
    assert [first[name] for name in counts] == [12, 9, 12]
    windowed = AttentionEntropy(twin=False, beta=False)(model("mistral"), TEXTS[0]).rows()[0]
    assert [windowed[name] for name in counts] == [9, None, 3]  # a window of 4 keys
    figure = result.plot(selected=(2, 3), head=1)
    assert any("untrained twin" in trace.name for trace in figure.data if trace.name)
    assert "2 prompts" in figure.layout.annotations[0].text
    panels = AttentionEntropy.panels(result.data, prompt=0, position=4)
    lines = next(panel for panel in panels if panel.name == "entropy").lines
    assert [name for name, line in lines.items() if line.control] == ["uniform", "untrained twin"]
    facts = dict(AttentionEntropy.facts(result.data, layer=2, prompt=0, position=4))
    assert facts["visible keys"] == "5"
    section = AttentionEntropy.section(pl.LazyFrame(rows))
    assert [plot.title.split()[0] for plot in section.plots] == ["Entropy", "Growth"]
    assert section.headlines[1].low < section.headlines[1].value < section.headlines[1].high


def test_refusals() -> None:
    with pytest.raises(wb.WorkbenchError, match="two stacks"):
        AttentionEntropy()(model("t5"), "abc")
    with pytest.raises(wb.WorkbenchError, match="pattern"):
        AttentionEntropy()(model("gptj"), "abc")

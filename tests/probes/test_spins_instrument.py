"""Spins: the susceptibility of a run against the formula on all prompts at once, shards, controls, words."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from probes import Particles, Spins
from probes.particles.controls import shuffled
from probes.particles.ensemble import merged, moments, susceptibility_of
from probes.particles.spins import susceptibility
from tests.probes.test_particles_instrument import (
    TEXTS,
    hf_states,
    mean_by_hand,
    other_text,  # noqa: F401 - a fixture
)
from tests.tiny import LAYERS, hf_model, model, tokenizer, tokenizer_of
from workbench.passes import finished, gather
from workbench.report.tables import frame
from workbench.store.capture import capture

FEW = {"draws": 2, "seed": 5}


@pytest.fixture(scope="module")
def gpt2() -> wb.TorchModel:
    return wb.load(hf_model("gpt2"), tokenizer_of("gpt2"))


@pytest.fixture(scope="module")
def found(gpt2: wb.TorchModel, other_text: str) -> wb.Result:  # noqa: F811
    return Spins(corpus=other_text, **FEW)(gpt2, TEXTS, batch_size=2)


def by_hand(sets: list[torch.Tensor]) -> list[float]:
    """The formula, prompt by prompt, layer by layer; states [layers, n, d] each."""
    known = []
    for layer in range(LAYERS + 1):
        units = [one[layer] / one[layer].norm(dim=-1, keepdim=True) for one in sets]
        total = sum(len(u) for u in units)
        whole = torch.cat(units).sum(0) / total
        terms = [len(u) * float((u.mean(0) - whole).square().sum()) for u in units]
        known.append(sum(terms) / (len(units) - 1))
    return known


def test_numbers_by_hand_from_hugging_face(gpt2: wb.TorchModel, found: wb.Result) -> None:
    """To 1e-9: sums of a few hundred float64 numbers below 1."""
    mean = mean_by_hand(gpt2.hf)
    plain = [hf_states(gpt2.hf, text) for text in TEXTS]
    centred = [x - mean[:, None] for x in plain]
    prompts = [gpt2.encode(wb.Prompt(text)) for text in TEXTS]
    orders = [tokenizer().decode(shuffled(p, gpt2.tokens, 6).ids) for p in prompts]
    mixed = [hf_states(gpt2.hf, text) for text in orders]
    for view, draw, sets in (("raw", 0, plain), ("centred", 0, centred), ("shuffled", 1, mixed)):
        values = found.data["susceptibility"].sel(view=view, draw=draw).values
        np.testing.assert_allclose(values, by_hand(sets), rtol=1e-9, err_msg=view)
    lengths = [(x / x.norm(dim=-1, keepdim=True)).mean(1).norm(dim=-1) for x in plain]
    one = found.data.sel(view="raw", draw=0)
    np.testing.assert_allclose(one["magnetisation"], torch.stack(lengths).mean(0), rtol=1e-9)
    energies = torch.stack(lengths).square().mean(0) / -2
    np.testing.assert_allclose(one["spin_energy"], energies, rtol=1e-9)
    assert one["prompts"].values.tolist() == [4.0] * (LAYERS + 1)
    assert one["tokens"].values.tolist() == [float(sum(map(len, TEXTS)))] * (LAYERS + 1)


def test_moments_of_parts_are_those_of_the_whole() -> None:
    """Parts of any size, one without prompts, prompts without tokens; far from 0 nothing cancels."""
    random = torch.Generator().manual_seed(0)
    m = 1e-6 * torch.randn(40, 3, 8, generator=random, dtype=torch.float64)
    m[..., 0] += 1.0
    n = torch.randint(0, 30, (40, 3), generator=random)
    whole = susceptibility(m, n)
    m[n == 0] = torch.nan
    parts = [moments(m[a:b], n[a:b]) for a, b in ((0, 1), (1, 1), (1, 7), (7, 40))]
    # relative to the largest rounding of M, 1e-16, over deviations of 1e-6
    torch.testing.assert_close(susceptibility_of(reduce(merged, parts)), whole, rtol=1e-8, atol=0.0)
    assert susceptibility_of(parts[0]).isnan().all()


def test_random_directions_have_a_susceptibility_of_one() -> None:
    random = torch.Generator().manual_seed(1)
    u = torch.randn(2000, 12, 16, generator=random, dtype=torch.float64)
    u /= u.norm(dim=-1, keepdim=True)
    known = moments(u.mean(1), torch.full((2000,), 12))
    # a mean of 2000 terms n |m|^2 of variance about 2 / d: five times its deviation of .008
    assert float(susceptibility_of(known)) == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_batches_padding_and_shards_change_nothing(family: str, other_text: str) -> None:  # noqa: F811
    one, instrument = model(family), Spins(corpus=other_text, draws=1)
    alone = instrument(one, TEXTS, batch_size=1).data
    for padding in ("left", "right"):
        together = instrument(one, TEXTS, padding=padding).data
        for name in together.data_vars:  # float64 rounding of the model's own passes
            np.testing.assert_allclose(together[name], alone[name], rtol=1e-7, atol=1e-9)
    settled = instrument.settled(one, [wb.Prompt(text) for text in TEXTS])
    states = [gather(one, part, [settled])[0].state for part in (TEXTS[:1], TEXTS[1:])]
    assert None not in states
    whole = finished(settled, one, settled.merge(*states)).data  # type: ignore[arg-type]
    for name in whole.data_vars:
        np.testing.assert_allclose(whole[name], alone[name], rtol=1e-7, atol=1e-9)


def test_views_are_those_of_particles(
    gpt2: wb.TorchModel,
    found: wb.Result,
    other_text: str,  # noqa: F811
) -> None:
    own = Particles(corpus=other_text, **FEW)(gpt2, TEXTS[:3]).data
    assert found.data["view"].values.tolist() == own["view"].values.tolist()
    three = Spins(corpus=other_text, **FEW)(gpt2, TEXTS[:3]).data
    # the magnetisation is the order parameter: the same float64 sums, of prompts of two tokens and more
    order = own["order_parameter"].mean("prompt", skipna=False)
    np.testing.assert_allclose(
        three["magnetisation"].values, order.transpose(*three["magnetisation"].dims), rtol=1e-9
    )


def test_a_store_and_a_single_prompt(gpt2: wb.TorchModel, tmp_path: Path) -> None:
    store = capture(gpt2, TEXTS[:2], sites="resid_post", out=tmp_path / "acts")
    stored = wb.measure(store, [Spins()])[0]
    assert stored.data["view"].values.tolist() == ["raw"]
    live = Spins(views=["raw"])(gpt2, TEXTS[:2])
    np.testing.assert_allclose(stored.data["susceptibility"], live.data["susceptibility"])
    alone = Spins(views=["raw"])(gpt2, TEXTS[:1])
    rows = alone.rows()
    assert [row["susceptibility"] for row in rows] == [None] * (LAYERS + 1)
    assert all(row["magnetisation"] > 0 for row in rows)
    assert json.dumps(rows, allow_nan=False)


def test_a_plan_counts_what_controls_cost(gpt2: wb.TorchModel) -> None:
    alone = wb.plan(gpt2, TEXTS[:1], [Spins(views=["raw"])]).block_tokens
    beside = wb.plan(gpt2, TEXTS[:1], [Spins(views=["random", "shuffled"], draws=2)])
    assert beside.block_tokens == 5 * alone


def test_progress_ends_at_its_total(gpt2: wb.TorchModel) -> None:
    seen: list[Any] = []
    Spins(views=["shuffled"], draws=1)(gpt2, TEXTS[:2], progress=seen.append)
    assert seen[-1].done == seen[-1].total == sum(map(len, TEXTS[:2]))


def test_rows_panels_facts_and_report(found: wb.Result) -> None:
    rows = {(row["view"], row["layer"]): row for row in found.rows()}
    drawn = found.data["susceptibility"].sel(view="random", layer=2).values
    row = rows["random", 2]
    ends = [row[f"susceptibility{end}"] for end in ("", "_low", "_high")]
    assert ends == pytest.approx([drawn.mean(), drawn.min(), drawn.max()], rel=1e-12)
    assert (row["draws"], row["prompts"], row["tokens"]) == (2, 4, sum(map(len, TEXTS)))
    assert rows["raw", 2]["susceptibility_low"] is None
    panels = {panel.name: panel for panel in Spins.panels(found.data)}
    assert list(panels) == [
        f"{name}-{view}"
        for name in ("susceptibility", "magnetisation")
        for view in ("raw", "centred")
    ]
    lines = panels["susceptibility-raw"].lines
    assert list(lines) == [
        "these prompts",
        "untrained twin",
        "shuffled tokens",
        "random directions",
    ]
    assert [line.control for line in lines.values()] == [False, True, True, True]
    facts = dict(Spins.facts(found.data, layer=2))
    assert "(twin " in facts["susceptibility, centred"]
    assert facts["tokens that count"] == f"{sum(map(len, TEXTS))} in 4 prompts"
    section = Spins.section(frame(found.rows()).lazy(), found.data)
    assert "sum_b n_b ||m_b - M||^2 / (B - 1)" in section.plots[0].caption
    assert found.cite().startswith("Tokens of")

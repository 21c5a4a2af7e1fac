"""Layers as a flow as an instrument: any batching, what it costs, its twin, its views, its refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import workbench as wb
from probes import LayerFlow
from probes.flow.views import viewed
from tests.tiny import hf_model, model
from workbench.models.blocks import Blocks

TEXTS = ["abcdef", "ghij", "klmnop"]
PARTS = ("ode", "integrated", "bracket", "lyapunov", "orders")
# What the order of sums leaves of a block: five products of at most 64 terms of order 1; and of what is
# measured, at most a hundred blocks after each other, over steps of half a state and more.
BLOCK = 5 * 64 * torch.finfo(torch.float64).eps
ROUNDING = 2 * 100 * BLOCK
CHEAP: dict[str, Any] = {"substeps": (1, 2), "limit": 4, "exponents": 2}


@pytest.fixture(scope="module")
def result() -> wb.Result:
    return LayerFlow(parts=PARTS, **CHEAP)(model("gpt2"), TEXTS)


def test_a_prompts_numbers_are_the_same_in_any_batch(result: wb.Result) -> None:
    flow, hooked = LayerFlow(parts=PARTS, **CHEAP), model("gpt2")
    left = hooked.batch(TEXTS, padding="left")
    places, found = flow.drive(hooked, left)
    alone = flow(hooked, TEXTS[1]).data
    here = np.flatnonzero(result.data["prompt"].values == result.data["prompt"].values[6])
    for name, values in found.items():
        np.testing.assert_allclose(values.values, result.data[name].values, rtol=0, atol=ROUNDING)
        expected = result.data[name].isel(place=here).values
        np.testing.assert_allclose(alone[name].values, expected, rtol=0, atol=ROUNDING)
    assert len(places) == result.data.sizes["place"] == 16


def test_the_path_is_that_of_the_model_and_of_its_twin(result: wb.Result) -> None:
    hooked = model("gpt2")
    for view, one in (("model", hooked), ("random", hooked.twin(0))):
        caught = one.capture(one.batch(TEXTS[0]), "resid_post")
        before, after = caught["resid_post", 1], caught["resid_post", 2]
        expected = (after - before).norm(dim=-1) / before.norm(dim=-1)
        found = result.data["step"].sel(view=view, layer=2).values[:6]
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12)


def test_one_step_is_nearest_to_its_flow_by_both_integrators(result: wb.Result) -> None:
    """The block's distance from 4 steps and from dopri5 differ by no more than these two do."""
    data = result.data
    gap = np.abs(data["ode_defect"].sel(substeps=1) - data["integrated_defect"])
    assert (gap <= data["limit_error"] + ROUNDING).all()
    assert float(data["limit_error"].median()) < float(data["integrated_defect"].median()) / 2


def test_exponents_are_the_mean_stretch_and_losses_of_every_prompt(result: wb.Result) -> None:
    data = result.data
    np.testing.assert_allclose(data["exponents"], data["stretch"].mean("layer"), rtol=1e-12)


def test_losses_are_those_of_branches_put_together_otherwise(result: wb.Result) -> None:
    """By the engine's own single blocks and its tail, for both branches at once in block 2 alone."""
    hooked, data = model("gpt2"), result.data
    batch = hooked.batch(TEXTS[0])
    before = hooked.capture(batch, "resid_post")["resid_post", 1][None]
    parts = [hooked.block(batch, 2, before, part=part) for part in ("attention", "mlp")]
    logits = hooked.tail(batch, 2, before + sum(parts)).values.popitem()[1]
    loss = torch.nn.functional.cross_entropy(logits[:-1], batch.ids[0, 1:])
    one = data.sel(view="model").isel(place=0)
    found = one["loss"] + one["layer_loss_change"].sel(layer=2, order="parallel")
    assert float(found) == pytest.approx(float(loss), abs=1e-12)
    assert "attention_first" not in data["order"].values
    assert "parallel" not in LayerFlow(parts="orders").coords(model("gptj"))["order"]


@pytest.mark.parametrize("family", ["gpt2", "gptj", "opt"])
def test_the_plan_counts_the_blocks_that_are_run(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = LayerFlow(parts=("ode", "bracket", "lyapunov", "orders"), **CHEAP)
    hooked = model(family)
    batch, counted, own = hooked.batch(TEXTS), [0], Blocks.run

    def counting(self: Blocks, layer: int, states: torch.Tensor, **more: Any) -> Any:
        counted[0] += states.shape[0] * states.shape[1]
        return own(self, layer, states, **more)

    monkeypatch.setattr(Blocks, "run", counting)
    views = flow.views(hooked)
    viewed(flow, views, batch, batch.places("all"), lambda _: None)
    passes = len(views) * hooked.n_layers * batch.tokens
    assert flow.block_tokens(hooked, batch.prompts) == counted[0] + passes


def test_the_share_done_grows_to_all() -> None:
    shares: list[float] = []
    hooked = model("gpt2")
    LayerFlow(parts=PARTS, **CHEAP).drive_paced(hooked, hooked.batch(TEXTS), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_the_path_needs_no_single_blocks() -> None:
    plain, hooked = hf_model("gpt2"), model("gpt2")
    expected = LayerFlow(twin=False)(hooked, TEXTS).data
    for engine in ("nnsight", "transformer_lens"):
        other = wb.load(plain, hooked.tokenizer, engine=engine)
        found = LayerFlow(twin=False)(other, TEXTS).data
        for name in ("step", "turn", "straightness"):
            # The model's own pass: its three blocks, of which a step is at least half the state here.
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=2 * 3 * BLOCK)
    encoder = LayerFlow(parts=("ode", "lyapunov"), twin=False, **CHEAP)(model("bert"), TEXTS[:1])
    assert np.isfinite(encoder.data["ode_defect"].values).all()


def test_the_bridge_runs_every_part(result: wb.Result) -> None:
    hooked = model("gpt2")
    bridge = wb.load(hf_model("gpt2"), hooked.tokenizer, engine="transformer_lens")
    found = LayerFlow(parts=PARTS, **CHEAP)(bridge, TEXTS).data
    for name in found.data_vars:
        own = found[name].sel(view="model").values
        expected = result.data[name].sel(view="model").values
        np.testing.assert_allclose(own, expected, rtol=0, atol=ROUNDING)


def test_rows_have_one_set_of_keys(result: wb.Result) -> None:
    rows = list(result.rows())
    tokens = [row for row in rows if row["position"] is not None]
    assert len(tokens) == 16 * 2 * 3 * (1 + 2)  # layers; path, and two numbers of substeps
    prompts = [row for row in rows if row["position"] is None]
    orders, exponents = 5, 2
    each = exponents * (3 + 1) + 1 + orders * (1 + 3)
    assert len(prompts) == 3 * 2 * each
    first = next(row for row in tokens if row["layer"] == 1 and row["view"] == "model")
    assert first["turn"] is None
    assert first["straightness"] == pytest.approx(1, abs=1e-12)


def test_views_draw_the_twin_beside_the_model(result: wb.Result) -> None:
    data = result.data
    for prompt in (None, data["prompt"].values[0]):
        drawn = LayerFlow.figure(data, prompt=prompt, selected=(2, 1))
        names = {trace.name for trace in drawn.data}
        assert {"step", "twin: step (control)", "½M A ½M (Macaron)"} <= names
        assert "Twin's loss" in drawn.layout.title.text
    panels = {panel.name: panel for panel in LayerFlow.panels(data, position=1)}
    assert list(panels) == ["step", "path", "flow", "splitting", "stretch", "halves", "orders"]
    assert panels["flow"].title == "from flow (N=4), of |dx|"
    step = panels["step"].lines["step"].values
    place = data.isel(place=1)
    np.testing.assert_allclose(step, np.log10(place["step"].sel(view="model")))
    facts = dict(LayerFlow.facts(data, layer=2, position=1))
    own, twin = (float(place["bracket"].sel(view=v, layer=2)) for v in ("model", "random"))
    assert facts["bracket [F, G]"] == f"{own:.3g} of the step (twin {twin:.3g})"
    assert LayerFlow.facts(data, layer=0) == []
    assert "turn" not in dict(LayerFlow.facts(data, layer=1))


def test_a_change_that_dwarfs_the_others_is_written_at_the_end_of_the_axis(
    result: wb.Result,
) -> None:
    data = result.data.copy(deep=True)
    assert LayerFlow.panels(data)[-1].ends is None
    change = data["layer_loss_change"]
    change.loc[{"layer": 1, "order": "mlp_first", "view": "model"}] = -123.0
    panel = LayerFlow.panels(data)[-1]
    rest = change.sel(layer=slice(2, None), order=["mlp_first", "parallel"]).isel(place=0)
    assert panel.ends[0] <= float(rest.min())
    assert panel.ends[1] >= float(rest.max())
    assert panel.ends[0] > -123 / 4
    texts = {
        (trace.x[0], trace.y[0]): trace.text[0]
        for trace in LayerFlow.figure(data, prompt=0).data
        if trace.mode == "text"
    }
    assert ">-123</span>" in texts[panel.ends[0], 1]
    assert {layer for _, layer in texts} == {1}


def test_the_report_has_numbers_beside_the_twins(result: wb.Result) -> None:
    rows = pl.DataFrame(list(result.rows()), infer_schema_length=None).lazy()
    section = LayerFlow.section(rows)
    labels = [one.label for one in section.headlines]
    assert {"Steps, model", "Steps, untrained twin", "Loss"} <= set(labels)
    value = next(
        h.value for h in section.headlines if h.label == "Bracket of attention and MLP, model"
    )
    assert "Distance of a block from its flow, N = 1, model" in labels
    each = result.data["bracket"].sel(view="model").groupby("prompt").mean(...)
    assert value == pytest.approx(float(each.median()))
    assert section.plots[0].title == "Steps"
    titles = ["Exponents", "Other orders", "One block in another order"]
    assert [listing.title for listing in section.listings] == titles
    path = LayerFlow.section(
        rows.select("prompt", "view", "layer", "position", "step", "turn", "straightness")
    )
    assert not path.listings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"parts": "odes"}, "part 'odes': expected some of ode, integrated"),
        ({"limit": 1}, "limit is 1"),
        ({"substeps": (1, 64)}, "expected whole numbers, 1 to below limit=64"),
        ({"substeps": (2, 2)}, "expected each once"),
        ({"exponents": 0}, "exponents is 0"),
        ({"directions": "radial"}, "expected tangent or all"),
        ({"tolerance": 0}, "tolerance is 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(wb.SettingError, match=said):
        LayerFlow(**settings)


def test_what_a_model_or_a_prompt_lacks_is_refused_before_any_work() -> None:
    with pytest.raises(wb.UnsupportedError, match="needs one stack of blocks"):
        LayerFlow()(model("t5"), "abc")
    for part in ("bracket", "orders"):
        with pytest.raises(wb.UnsupportedError, match=f"{part} needs a decoder"):
            LayerFlow(parts=part)(model("bert"), "abc")
    traced = wb.load(hf_model("gpt2"), model("gpt2").tokenizer, engine="nnsight")
    with pytest.raises(wb.UnsupportedError, match="nnsight engine has not"):
        LayerFlow(parts="ode")(traced, "abc")
    with pytest.raises(wb.SettingError, match="bfloat16 rounds off"):
        LayerFlow(parts="ode")(model("gpt2", torch.bfloat16), "abc")
    with pytest.raises(wb.SettingError, match="expected at most 15"):
        LayerFlow(parts="lyapunov", exponents=16)(model("gpt2"), "abc")
    with pytest.raises(wb.PromptError, match="one token long"):
        LayerFlow(parts="orders")(model("gpt2"), ["abc", "a"])


def test_a_large_models_twin_is_left_out_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.twins.MOST", 100)
    found = LayerFlow()(model("gpt2"), "abc")
    assert found.data["view"].values.tolist() == ["model"]
    assert "No untrained twin" in found.provenance["remarks"][0]
    assert math.isfinite(found.data["step"].values[0, 0, 0])

"""Input attribution against naive forms that hold a vector for each query and key, in float64."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import workbench as wb
from lenses import InputAttribution
from lenses.inputs.instrument import BY_HEAD, BY_LAYER, GRADIENTS, METHODS
from tests.tiny import LAYERS, hf_model, model, tokenizer

TEXTS = ["The Eiffel Tower", "Rome", "x"]
# In turn: plain; grouped keys; norms on queries and keys; a norm behind the branch, windows and
# soft-caps; a norm of the whole; a multiplier; a norm behind alone; parallel branches; the norm of
# the sum, no mask.
DIFFERENT = ["gpt2", "llama", "qwen3", "gemma2", "granite", "olmo2", "gpt_neox", "mistral", "bert"]
TIGHT = {
    "rtol": 0,
    "atol": 2e-6,
}  # sizes about 1; Gemma's and Llama's norms and softmax are float32


class Naive:
    """One layer of one prompt, with every vector that attention adds: [heads, query, key, d]."""

    def __init__(self, hooked: wb.TorchModel, text: str, layer: int) -> None:
        found = hooked.capture(text, ["pattern", "v", "resid_pre"])
        self.pattern = found["pattern", layer].transpose(0, 1)
        values, heads = found["v", layer].transpose(0, 1), hooked.weights.heads(layer)
        values = values.repeat_interleave(len(heads) // len(values), dim=0)
        self.vectors = torch.stack(
            [
                a[:, :, None] * (v @ w)[None]
                for a, v, w in zip(self.pattern, values, heads, strict=True)
            ]
        )
        self.states = found["resid_pre", layer]
        self.after = self._after(hooked, layer)
        bias = hooked.weights.map("o", layer).bias
        self.bias = 0 if bias is None else bias * hooked.weights.multiplier

    def _after(self, hooked: wb.TorchModel, layer: int) -> str:
        part = hooked.anatomy.family.attn_out
        self.module: Any = None
        if hooked.anatomy.family.sum_norm:
            self.module = hooked.anatomy.block(layer).attention.output.LayerNorm
            return "sum"
        if part == "post_attention_layernorm":
            self.module = hooked.anatomy.block(layer).post_attention_layernorm
            return "branch"
        return ""

    def linear(self, vectors: Tensor, around: Tensor) -> Tensor:
        """What the norm makes of a part of `around`, its scale held: the norm's own derivative of
        a scaling, found without the workbench's reading of the module."""
        size = around.mean(-1, keepdim=True) if isinstance(self.module, torch.nn.LayerNorm) else 0
        centred = around - size
        zero = torch.zeros_like(around)
        offset = self.module(zero)
        gained = self.module(around) - offset
        gain = gained / centred  # gain / scale, by element
        part = vectors.mean(-1, keepdim=True) if isinstance(self.module, torch.nn.LayerNorm) else 0
        return gain[:, None] * (vectors - part)

    @torch.no_grad()
    def alti(self) -> Tensor:
        moved = self.vectors.sum(0)
        own = torch.zeros_like(moved)
        here = torch.arange(len(own))
        own[here, here] = self.states
        added = moved.sum(1) + self.bias
        if self.after == "sum":
            parts = self.linear(moved + own, self.states + added)
            output = self.module(self.states + added)
        elif self.after == "branch":
            parts = self.linear(moved, added) + own
            output = self.states + self.module(added)
        else:
            parts, output = moved + own, self.states + added
        apart = (output[:, None] - parts).abs().sum(-1)
        near = (output.abs().sum(-1, keepdim=True) - apart).clamp_min(0)
        near = torch.where(self.pattern.sum(0) > 0, near, 0)
        return near / near.sum(-1, keepdim=True)


@pytest.mark.parametrize("family", DIFFERENT)
def test_value_norms_and_alti_are_those_of_every_vector(family: str) -> None:
    hooked = model(family)
    data = InputAttribution(positions="all")(hooked, TEXTS[0]).data
    rolled: dict[str, Tensor] = {}
    for layer in range(1, LAYERS + 1):
        naive, found = Naive(hooked, TEXTS[0], layer), data.sel(layer=layer)
        np.testing.assert_allclose(found.raw, naive.pattern, **TIGHT)
        np.testing.assert_allclose(found.value_norm, naive.vectors.norm(dim=-1), **TIGHT)
        shares = naive.alti()
        defined = shares.isfinite().all(-1)  # the paper's row is 0 / 0 where nothing is near
        np.testing.assert_allclose(found.alti.values[defined], shares[defined], **TIGHT)
        assert defined.float().mean() > 0.9
        mean = naive.pattern.mean(0) + torch.eye(len(shares))
        factors = {
            "rollout": mean / mean.sum(-1, keepdim=True),
            "alti_rollout": torch.from_numpy(found.alti.values),
        }
        for name, factor in factors.items():
            rolled[name] = factor if layer == 1 else factor @ rolled[name]
            np.testing.assert_allclose(found[name], rolled[name], **TIGHT)


@pytest.mark.parametrize("family", DIFFERENT)
def test_rows_sum_to_one_and_the_future_is_exactly_nothing(family: str) -> None:
    hooked = model(family)
    data = InputAttribution(methods=BY_LAYER, positions="all")(hooked, TEXTS[0]).data
    for name in BY_LAYER:
        np.testing.assert_allclose(data[name].sum("key"), 1, rtol=0, atol=1e-12)
        if hooked.causal:
            assert (np.triu(data[name].values, 1) == 0).all()


@pytest.mark.parametrize("family", ["mistral", "bert"])
def test_alti_a_few_rows_at_a_time_is_the_same(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lens = InputAttribution(methods=["alti"], positions="all")
    whole = lens(model(family), TEXTS[0]).data.alti
    monkeypatch.setattr("lenses.inputs.mixing.AT_ONCE", 3 * 16 * 66)
    parts = lens(model(family), TEXTS[0]).data.alti
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bert"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_padding_and_batches_change_nothing(family: str, padding: Any) -> None:
    """The text "x" alone in gpt2 and gemma2: one token, which is all its own."""
    hooked, settings = model(family), {"positions": "all"}
    masked = [text + "[MASK]" for text in TEXTS] if family == "bert" else TEXTS
    prompts = [wb.Prompt(text, target=65) for text in masked]
    lens = InputAttribution(methods=[m for m in METHODS if m != "integrated_gradients"], **settings)
    together = lens(hooked, prompts, padding=padding).data
    for number, prompt in enumerate(prompts):
        alone = lens(hooked, prompt).data
        here = together.isel(place=np.flatnonzero(together.prompt.values == number))
        for name in lens.methods:
            found = here[name].values
            assert np.isnan(found[..., alone.sizes["key"] :]).all()
            expected = alone[name].values
            np.testing.assert_allclose(found[..., : alone.sizes["key"]], expected, **TIGHT)
        if family != "bert" and number == 2:
            assert alone.alti.values.ravel().tolist() == [1.0] * LAYERS


# Central differences are off by h^2 times a third derivative, and by rounding / h, where norms,
# softmax or rotations are float32 inside (1e-7 / 1e-3 there, with values of about 3).
@pytest.mark.parametrize(
    ("family", "h", "atol"), [("gpt2", 1e-5, 1e-8), ("qwen3", 1e-3, 1e-3), ("gptj", 1e-3, 1e-3)]
)
def test_gradient_x_input_is_the_slope_of_scaling_one_token(
    family: str, h: float, atol: float
) -> None:
    hooked = model(family)
    prompt = wb.Prompt(TEXTS[1], target=65, foil=66)
    data = InputAttribution(methods=["gradient_x_input"])(hooked, prompt).data
    states = hooked.capture(prompt, [("resid_post", 0)])["resid_post", 0][None]

    def logit(token: int, factor: float) -> float:
        moved = states.clone()
        moved[0, token] *= factor
        found = hooked.tail(prompt, 0, moved, positions="last")["logits", LAYERS][0]
        return float(found[65] - found[66])

    slopes = [(logit(t, 1 + h) - logit(t, 1 - h)) / (2 * h) for t in range(states.shape[1])]
    np.testing.assert_allclose(data.gradient_x_input[0], slopes, rtol=0, atol=atol)


def test_integrated_gradients_are_complete() -> None:
    """Gauss-Legendre with n points converges faster than any power of 1 / n along a smooth way.

    From the mean embedding the way is smooth: the residual that is reported is the distance from
    f(input) - f(baseline), and at 64 points less than a thousandth of it.
    """
    prompt = wb.Prompt("The Eiffel Tower is located in the city of", target=" Paris", foil=" Rome")
    residuals = []
    for steps in (4, 64):
        lens = InputAttribution(methods=["integrated_gradients"], steps=steps)
        data = lens(wb.load(), prompt).data
        residuals.append(abs(float(data.integrated_gradients_residual[0])))
    atlas = wb.load()
    states = atlas.capture(prompt, [("resid_post", 0)])["resid_post", 0]
    ids = {name: getattr(atlas.encode(prompt), name) for name in ("target", "foil")}
    ends = []
    for given in (states, states.mean(0).expand_as(states)):
        logits = atlas.tail(prompt, 0, given[None], positions="last")["logits", 6][0]
        ends.append(float(logits[ids["target"]] - logits[ids["foil"]]))
    change = ends[0] - ends[1]
    assert residuals[1] < 1e-3 * abs(change) < residuals[0]
    assert float(data.integrated_gradients.sum()) == pytest.approx(change, rel=1e-3)


def test_gradients_stand_where_the_target_is_predicted_alone() -> None:
    prompts = [wb.Prompt("abc", target=65), wb.Prompt("ab", target=66)]
    lens = InputAttribution(methods=["gradient_x_input"], positions="all")
    data = lens(model("gpt2"), prompts).data
    known = data.gradient_x_input.notnull().any("key").values
    assert known.tolist() == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": ["rollback"]}, r"methods \['rollback'\]: expected some of raw, value_norm"),
        ({"methods": []}, "expected some of raw"),
        ({"methods": ["raw", "raw"]}, "each once"),
        ({"steps": 0}, "steps is 0: expected a whole number"),
        ({"baseline": "noise"}, "baseline is 'noise': expected zero or mean"),
        ({"methods": ["gradient_x_input"]}, "prompt 'The Eiffel Tower' has no target"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(wb.WorkbenchError, match=message):
        InputAttribution(**settings)(model("gpt2"), TEXTS[0])


def test_what_it_cannot_do_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(wb.UnsupportedError, match="has two stacks.* use attention with kind=cross"):
        InputAttribution()(model("t5"), TEXTS[0])
    with pytest.raises(wb.UnsupportedError, match="bloom has no pattern"):
        InputAttribution()(model("bloom"), TEXTS[0])
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(wb.SettingError, match=r"needs captum: install .* extra \[attribution\]"):
        InputAttribution(methods=GRADIENTS)(model("gpt2"), wb.Prompt("ab", target=65))
    monkeypatch.setattr("lenses.inputs.instrument.MOST_KEPT", 100)
    with pytest.raises(wb.SettingError, match="weights of a prompt of 16 tokens take"):
        InputAttribution()(model("gpt2"), TEXTS[0])


def test_half_precision_is_computed_in_single() -> None:
    half = wb.load(hf_model("llama", torch.bfloat16), tokenizer(bos=True))
    data = InputAttribution(methods=["value_norm", "alti"])(half, TEXTS[0]).data
    assert data.alti.dtype == np.float32
    np.testing.assert_allclose(data.alti.sum("key"), 1, atol=1e-5)  # float32, 16 terms


def test_half_precision_says_what_it_does_to_gradients() -> None:
    half, prompt = wb.load(hf_model("llama", torch.bfloat16), tokenizer(bos=True)), "Rome"
    result = InputAttribution(methods=GRADIENTS)(half, wb.Prompt(prompt, target=65, foil=66))
    assert result.data.gradient_x_input.dtype == np.float32
    assert np.isfinite(result.data.integrated_gradients_residual).all()
    (remark,) = result.provenance["remarks"]
    assert remark.startswith("bfloat16: a gradient that came back")
    assert InputAttribution().remarks(half) == []
    assert InputAttribution(methods=GRADIENTS).remarks(model("gpt2")) == []


def test_a_target_that_is_its_own_foil_has_no_gradient() -> None:
    same = wb.Prompt("Rome", target="a", foil="a")
    with pytest.raises(wb.TargetError, match="'a' as target and as foil, whose difference has no"):
        InputAttribution(methods=["gradient_x_input"])(model("gpt2"), same)
    assert InputAttribution()(model("gpt2"), same).data.sizes["place"] == 1


def test_rows() -> None:
    prompts = [wb.Prompt("abc", target=65, id="p"), wb.Prompt("abcde", target=65, id="q")]
    lens = InputAttribution(methods=["raw", "alti", "gradient_x_input"])
    rows = lens(model("gpt2"), prompts, batch_size=1).rows()
    assert list(rows[0]) == [
        "prompt", "method", "layer", "head", "query", "key", "weight", "query_token", "key_token",
    ]  # fmt: skip
    assert len(rows) == (3 + 5) * (LAYERS * 2 + LAYERS + 1)
    assert [rows[-1][key] for key in ("prompt", "layer", "head", "key")] == ["q", None, None, 4]
    assert rows[1]["key_token"] == "b"
    assert not any(math.isnan(row["weight"]) for row in rows)
    assert set(BY_HEAD) >= {row["method"] for row in rows if row["head"] is not None}

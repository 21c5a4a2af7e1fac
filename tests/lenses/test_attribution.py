"""Direct attribution against a decomposition that holds every part, and against transformer-lens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import workbench as wb
from lenses import DirectAttribution
from tests.models.bridges import bridge
from tests.models.test_quantised import Bytes
from tests.tiny import (
    LAYERS,
    OWN_CODE,
    ROUTED,
    hf_model,
    model,
    tokenizer,
    tokenizer_of,
)
from workbench.models.norms import Norm

PROMPTS = [
    wb.Prompt("The Eiffel", id="both", target=65, foil=70),
    wb.Prompt("xyz abc d", id="alone", target=66),
    wb.Prompt("ab", id="none"),
]
VARIOUS = [
    "gpt2", "gpt_neo", "gptj", "gpt_neox", "opt", "opt_projected", "bloom", "falcon_new", "llama",
    "gemma", "gemma2", "gemma3", "phi", "phi3", "stablelm_parallel", "olmo2", "cohere", "granite",
    "mixtral", "gpt_oss", "t5_gated",
]  # fmt: skip
"""Families that differ in what has to add up."""

EXACT = 1e-12  # sums of tens of float64 terms of size 10, each rounded at 1e-15
PEER = 1e-6  # transformer-lens computes attention's softmax in float32
EVERYTHING = 500  # more sources and neurons than any tiny model has


def bound(family: str) -> float:
    """What completeness may miss: 1e-8, or what float32 inside norms explains.

    Such a norm rounds each of its d = 16 numbers by 2^-24 of it, a few times over; weighed with u and
    summed they miss at most 4 * 2^-24 * sum |normed u|, which is below 4 for these models.
    """
    rounds = model(family).hf.config.model_type not in (
        "gpt2", "gpt_neo", "gptj", "gpt_neox", "opt", "bloom", "falcon", "phi", "stablelm", "t5",
    )  # fmt: skip
    return 4 * 2**-24 * 4 if rounds else 1e-8


def splits(family: str) -> list[str]:
    """Every split that the family has."""
    found = ["heads"]
    found += [] if family in ROUTED else ["neurons"]
    return found + ([] if family in OWN_CODE or family.startswith("t5") else ["sources"])


def measured(family: str, **settings: Any) -> xr.Dataset:
    return DirectAttribution(split=splits(family), **settings)(model(family), PROMPTS).data


def own_logits(family: str) -> Tensor:
    """[place, V] the model's logits before its soft-cap, from a pass that runs the same attention."""
    hooked = model(family)
    inside = ["pattern"] if "sources" in splits(family) else []
    logits = hooked.capture(PROMPTS, ["logits", *inside])["logits", hooked.n_layers]
    cap = getattr(hooked.anatomy.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * (logits / cap).atanh()


def attributed(data: xr.Dataset, logits: Tensor) -> Tensor:
    """[place] what a result says it attributes, from logits."""
    target, foil = (
        torch.from_numpy(data[f"{end}_id"].values)[:, None] for end in ("target", "foil")
    )
    other = torch.where(
        foil < 0, logits.mean(-1, keepdim=True), logits.gather(-1, foil.clamp_min(0))
    )
    return (logits.gather(-1, target) - other)[:, 0]


@pytest.mark.parametrize("family", VARIOUS)
def test_every_level_sums_to_the_models_own_logits(family: str) -> None:
    data = measured(family, top=3)
    logit = attributed(data, own_logits(family))
    sums = data.contribution.sum(("component", "layer")) + data.norm_bias + data.unembed_bias
    atol = bound(family)
    np.testing.assert_allclose(sums, logit, rtol=0, atol=atol)
    np.testing.assert_allclose(data.residual, sums - data.logit, rtol=0, atol=EXACT)
    behind_a_norm = model(family).weights.branch_norm("o", 1) is not None
    assert float(data.split_residual.max()) < (atol if behind_a_norm else 1e-8)


def scale(module: torch.nn.Module, norm: Norm, states: Tensor) -> Tensor:
    """[N, 1] what a norm divides by, by the formula of its kind."""
    named = [getattr(module, name, None) for name in ("eps", "variance_epsilon")]
    eps = next(float(value) for value in named if value is not None)
    return (norm.centred(states).square().mean(-1, keepdim=True) + eps).sqrt()


class Naive:
    """Every part as a vector, and the logits of the frozen last step with it and without it."""

    def __init__(self, family: str, data: xr.Dataset) -> None:
        hooked = model(family)
        self.weights, self.data = hooked.weights, data
        sites = ["z", "attn_out", "resid_post"]
        sites += [] if family in ROUTED else ["mlp_act", "mlp_out"]
        sites += [] if family in OWN_CODE else ["v", "pattern"]
        self.caught = hooked.capture(PROMPTS, sites)
        self.state = self.caught["resid_post", LAYERS]
        self.module, self.norm = self.weights.final_norm(self.state)
        self.inverse = 1 / scale(self.module, self.norm, self.state)

    def contribution(self, parts: Tensor) -> Tensor:
        """[N, m] of [N, m, d] parts: what the attributed logit loses when each is taken away."""
        without = self.state[:, None] - parts
        return self.frozen(self.state[:, None]) - self.frozen(without)

    def frozen(self, states: Tensor) -> Tensor:
        head = self.weights.unembedding
        normed = self.norm.linear(states) * self.inverse[:, None] + self.norm.offset
        logits = normed @ head.weight.T
        return torch.stack([attributed(self.data, each) for each in logits.unbind(1)], 1)

    def behind(self, name: str, layer: int, parts: Tensor, raw: Tensor) -> Tensor:
        """Parts as they enter the stream: behind the branch's norm, whose scale is held."""
        after = self.weights.branch_norm(name, layer)
        if after is None:
            return parts
        return after[1].linear(parts) / scale(*after, raw)[:, None]

    def heads(self, layer: int) -> Tensor:
        """[N, heads, d]"""
        parts = torch.einsum("nhe,hed->nhd", self.caught["z", layer], self.weights.heads(layer))
        return self.behind("o", layer, parts, self.raw("o", layer, parts))

    def raw(self, name: str, layer: int, parts: Tensor) -> Tensor:
        bias = self.weights.map(name, layer).bias
        return parts.sum(1) + (0 if bias is None else bias * self.weights.multiplier)

    def sources(self, layer: int) -> Tensor:
        """[N, heads * keys, d]"""
        where, pattern = self.caught.places, self.caught["pattern", layer]
        v = self.caught["v", layer].repeat_interleave(
            pattern.shape[1] // self.caught["v", layer].shape[1], dim=1
        )
        parts = torch.zeros(*pattern.shape, v.shape[-1], dtype=v.dtype)
        for n, row in enumerate(where.row.tolist()):
            own = v[where.row == row].transpose(0, 1)  # [heads, keys, d_head]
            parts[n, :, : own.shape[1]] = pattern[n, :, : own.shape[1], None] * own
        written = torch.einsum("nhse,hed->nhsd", parts, self.weights.heads(layer))
        raw = self.raw("o", layer, written.sum(2))
        return self.behind("o", layer, written.flatten(1, 2), raw)

    def neurons(self, layer: int) -> Tensor:
        """[N, d_mlp, d]"""
        parts = self.caught["mlp_act", layer][:, :, None] * self.weights.neurons(layer)
        name = self.weights.last_mlp_map
        return self.behind(name, layer, parts, self.raw(name, layer, parts))


NAIVE = [
    "gpt2",
    "gpt_neox",
    "opt_projected",
    "llama",
    "gemma2",
    "olmo2",
    "granite",
    "cohere",
    "mixtral",
]


@pytest.mark.parametrize("family", NAIVE)
def test_every_part_is_what_the_logit_loses_without_it(family: str) -> None:
    data = measured(family, top=EVERYTHING)
    naive, atol = Naive(family, data), bound(family)
    for layer in range(1, LAYERS + 1):
        at = data.sel(layer=layer)
        attention = naive.contribution(naive.caught["attn_out", layer][:, None])[:, 0]
        found = at.contribution.sel(component="attn_out")
        np.testing.assert_allclose(found, attention, rtol=0, atol=atol)
        heads = naive.contribution(naive.heads(layer))
        np.testing.assert_allclose(at.head_contribution.T, heads, rtol=0, atol=atol)
        sources = naive.contribution(naive.sources(layer))
        np.testing.assert_allclose(
            spread(at.source_contribution, at.source_position, sources.shape[1] // 2),
            sources.view(len(sources), 2, -1),
            rtol=0,
            atol=atol,
        )
        np.testing.assert_allclose(at.source_rest, 0, atol=EXACT)
        if "neuron_unit" in data:
            neurons = naive.contribution(naive.neurons(layer))
            units = spread(at.neuron_contribution, at.neuron_unit, neurons.shape[1])
            np.testing.assert_allclose(units, neurons, rtol=0, atol=atol)


def spread(values: xr.DataArray, index: xr.DataArray, width: int) -> np.ndarray:
    """[..., width] terms at their own places again; 0 where none is named."""
    out = np.zeros((*values.shape[:-1], width + 1))
    np.put_along_axis(out, index.values, values.fillna(0).values, -1)  # -1 is the last column
    return out[..., :width]


def test_the_largest_are_named_and_the_rest_is_one_sum() -> None:
    whole, few = measured("llama", top=EVERYTHING), measured("llama", top=3)
    for name, number in (("neuron", "neuron_unit"), ("source", "source_position")):
        terms = whole[f"{name}_contribution"]
        assert (abs(terms).diff("k").fillna(-1) <= 0).all()
        first = terms.sel(k=slice(1, 3))
        xr.testing.assert_identical(few[f"{name}_contribution"], first)
        xr.testing.assert_identical(few[number], whole[number].sel(k=slice(1, 3)))
        left = terms.sel(k=slice(4, None)).sum("k", skipna=True)
        rest = few[f"{name}_rest"]
        np.testing.assert_allclose(rest, left.where(rest.notnull()), rtol=0, atol=EXACT)
        assert (few[number].where(few[f"{name}_contribution"].isnull(), 0) <= 0).all()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "t5"])
def test_batches_padding_and_positions_do_not_matter(family: str) -> None:
    lens = DirectAttribution(split=splits(family), top=4)
    whole = lens(model(family), PROMPTS).data
    atol = 1e-10 if family in ("gpt2", "t5") else bound(family)
    for options in ({"batch_size": 1}, {"padding": "left"}):
        assert_same(lens(model(family), PROMPTS, **options).data, whole, atol)
    last = DirectAttribution(split=splits(family), top=4, positions="last")(model(family), PROMPTS)
    ends = [np.flatnonzero(whole.prompt.values == prompt.id)[-1] for prompt in PROMPTS]
    assert_same(last.data, whole.isel(place=ends), atol)


def assert_same(found: xr.Dataset, expected: xr.Dataset, atol: float) -> None:
    """The same terms; the vocabulary holds the texts of either result's own tokens."""
    for name in set(expected.data_vars) - {"vocabulary", "split_residual"}:
        xr.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol)


@pytest.mark.parametrize("family", ["gpt2", "falcon", "gemma2"])
def test_transformer_lens_as_the_engine_gives_the_same(family: str) -> None:
    """Its hooks also see inside attention that torch's engine cannot (falcon's sources)."""
    own = DirectAttribution(split=splits(family))(model(family), PROMPTS).data
    asked = [*dict.fromkeys([*splits(family), "sources"])]
    other = DirectAttribution(split=asked)(bridge(family), PROMPTS).data
    np.testing.assert_allclose(other.split_residual, 0, atol=bound(family))
    assert_same(other, own, bound(family))


@pytest.mark.parametrize("foil", [70, None])
def test_transformer_lens_own_attribution_agrees(foil: int | None) -> None:
    """Its `direct_logit_attribution`, of components and of heads, on folded and centred weights.

    Its centred unembedding makes of one token's logit what the vocabulary's mean does here. Folding
    moves the values' biases (the first norm's offset among them) from the heads into attention's
    output bias, so they are 0 in this model.
    """
    from transformer_lens.tools.analysis import direct_logit_attribution

    ours, theirs = (without_value_biases(engine) for engine in ("torch", "transformer_lens"))
    theirs.bridge.enable_compatibility_mode(disable_warnings=True)
    prompt = wb.Prompt(PROMPTS[0].text, target=65, foil=foil)
    data = DirectAttribution(positions="last")(ours, prompt).data.isel(place=0)

    def peer(unit: str) -> dict[str, float]:
        found = direct_logit_attribution(
            theirs.bridge,
            torch.tensor([ours.encode(prompt).ids]),
            answer_tokens=65,
            incorrect_tokens=foil,
            unit=unit,
        )
        return dict(zip(found.labels, found.attribution.flatten().tolist(), strict=True))

    parts, heads = peer("component"), peer("head")
    for layer in range(1, LAYERS + 1):
        for name in ("attn_out", "mlp_out"):
            found = float(data.contribution.sel(component=name, layer=layer))
            assert parts[f"{layer - 1}_{name}"] == pytest.approx(found, abs=PEER)
        for head in (0, 1):
            found = float(data.head_contribution.sel(layer=layer, head=head))
            assert heads[f"L{layer - 1}H{head}"] == pytest.approx(found, abs=PEER)
    embedded = float(data.contribution.sel(component="embed", layer=0))
    assert parts["embed"] + parts["pos_embed"] == pytest.approx(embedded, abs=PEER)


def without_value_biases(engine: Any) -> Any:
    hf = hf_model("gpt2")
    with torch.no_grad():
        for block in hf.transformer.h:
            block.attn.c_attn.bias[-hf.config.n_embd :] = 0
            block.ln_1.bias[:] = 0
    return wb.load(hf, tokenizer(), engine=engine)


def test_adding_the_same_to_every_logit_changes_nothing() -> None:
    """What the mean of the vocabulary is for: u and u + c for all tokens are one model."""
    hf = hf_model("llama")
    moved = wb.load(hf, tokenizer_of("llama"))
    before = DirectAttribution()(moved, PROMPTS).data
    with torch.no_grad():
        hf.lm_head.weight += torch.randn(16, dtype=torch.float64)
    after = DirectAttribution()(moved, PROMPTS).data
    assert_same(after, before, 1e-10)


def test_without_a_target_the_models_own_top_token_is_taken_and_said() -> None:
    data = measured("gpt2")
    top = own_logits("gpt2").argmax(-1).numpy()
    given = data.prompt.values != "none"
    assert (data.target_given.values == given).all()
    assert (data.target_id.values[~given] == top[~given]).all()
    assert (data.target_id.values[given] == np.where(data.prompt == "both", 65, 66)[given]).all()
    assert (data.foil_id.values == np.where(data.prompt == "both", 70, -1)).all()
    assert data.capped.values.sum() == 0
    assert (measured("gemma2").capped == 1).all()


def test_changed_weights_are_those_that_are_split() -> None:
    torch.manual_seed(0)
    change = wb.Change(torch.randn(1, 16).double(), torch.randn(1, 16).double())
    view = model("gpt2").with_changes({("o", 2): change})
    data = DirectAttribution(split=splits("gpt2"))(view, PROMPTS).data
    assert float(data.split_residual.max()) < EXACT
    assert not np.allclose(
        data.head_contribution.sel(layer=2), measured("gpt2").head_contribution.sel(layer=2)
    )


def test_half_precision_says_what_it_misses() -> None:
    hooked = wb.load(hf_model("gpt2", torch.bfloat16), tokenizer())
    data = DirectAttribution()(hooked, PROMPTS).data
    assert 1e-4 < float(abs(data.residual).max()) < 1


def test_rows() -> None:
    data = DirectAttribution(split=splits("llama"), top=2, positions="last")(
        model("llama"), PROMPTS[:2]
    )
    rows = [row for row in data.rows() if row["prompt"] == "both"]
    assert list(rows[0]) == [
        "prompt", "component", "layer", "head", "unit", "source", "source_token", "position",
        "token", "contribution", "target", "foil", "logit", "residual", "target_given",
    ]  # fmt: skip
    of = {
        name: [row for row in rows if row["component"] == name]
        for name in {r["component"] for r in rows}
    }
    assert {name: len(found) for name, found in of.items()} == {
        "embed": 1, "attn_out": 3, "mlp_out": 3, "norm_bias": 1, "unembed_bias": 1,
        "head": 6, "attn_bias": 3, "source": 12, "source_rest": 6,
        "neuron": 6, "neuron_rest": 3, "mlp_bias": 3,
    }  # fmt: skip
    whole = sum(
        row["contribution"]
        for name in ("embed", "attn_out", "mlp_out", "norm_bias", "unembed_bias")
        for row in of[name]
    )
    assert whole == pytest.approx(rows[0]["logit"] + rows[0]["residual"], abs=EXACT)
    assert (rows[0]["target"], rows[0]["foil"]) == ("b", "g")
    source = of["source"][0]
    ids = model("llama").encode(PROMPTS[0]).ids
    assert source["source_token"] == model("llama").tokens.text(ids[source["source"]])
    assert [of["neuron"][0][key] is None for key in ("unit", "head", "source", "layer")] == [
        False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "headz"}, "split is 'headz': expected some of components, heads"),
        ({"split": ()}, "split is empty: expected some of"),
        ({"split": "heads,heads"}, "each once"),
        ({"top": 0}, "top is 0: expected a whole number, at least 1"),
        ({"top": True}, "top is True"),
        ({"positions": 1.5}, "positions 1.5"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        DirectAttribution(**settings)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            wb.Prompt("Rome", target="a", foil="a"),
            "'a' as target and as foil, whose difference is 0",
        ),
        (wb.Prompt("Rome", foil="a"), "has a foil, 'a', and no target: give it a target too"),
    ],
)
def test_directions_of_nothing_are_refused(prompt: wb.Prompt, message: str) -> None:
    with pytest.raises(wb.TargetError, match=message):
        DirectAttribution()(model("gpt2"), ["fine", prompt])


@pytest.mark.parametrize(
    ("family", "split", "message"),
    [
        ("bert", "components", "bert has no attn_out"),
        ("mixtral", "neurons", "mixtral has no linear map 'down': each token goes to experts"),
        ("falcon", "sources", "falcon has no pattern: it computes attention in its own code"),
        ("t5", "sources", "split 'sources' of a model with an encoder"),
    ],
)
def test_families_that_cannot_are_refused_by_name(family: str, split: str, message: str) -> None:
    with pytest.raises(wb.UnsupportedError, match=message):
        DirectAttribution(split=split)(model(family), "Rome")


def test_what_holds_no_weights_is_refused_by_name(tmp_path: Path) -> None:
    packed = hf_model("llama")
    packed.model.layers[1].mlp.down_proj = Bytes(packed.model.layers[1].mlp.down_proj).eval()
    hooked = wb.load(packed, tokenizer_of("llama"))
    DirectAttribution()(hooked, "Rome")
    with pytest.raises(wb.UnsupportedError, match="weights of down, layer 2"):
        DirectAttribution(split="neurons")(hooked, "Rome")
    remote = wb.load(hf_model("gpt2"), tokenizer(), engine="nnsight")
    with pytest.raises(wb.UnsupportedError, match="nnsight engine has no weights"):
        DirectAttribution()(remote, "Rome")
    store = wb.capture(model("gpt2"), "Rome", sites=["resid_post"], out=tmp_path / "acts")
    with pytest.raises(wb.UnsupportedError, match="direct_attribution reads the model's weights"):
        wb.measure(store, [DirectAttribution()])


def test_logits_that_are_no_numbers_are_refused_by_name() -> None:
    hf = hf_model("gpt2")
    hooked = wb.load(hf, tokenizer())
    with torch.no_grad():
        hf.transformer.h[1].mlp.c_proj.bias[0] = torch.nan
    with pytest.raises(wb.ModelError, match="the logit at position 0 of 'Rome' is not finite"):
        DirectAttribution()(hooked, wb.Prompt("Rome", target="a"))

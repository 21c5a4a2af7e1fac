"""The backward lens against autograd's weight gradients, closed forms, and itself in other batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import workbench as wb
from lenses import BackwardLens
from lenses.backward.factors import gradient_norm, shares, spectrum
from tests.tiny import LAYERS, hf_model, model, tokenizer, tokenizer_of
from workbench.aim import Aim
from workbench.atlas import prompts_path

PROMPTS = [
    wb.Prompt("The Eiffel Tower", target="s", foil="t"),
    wb.Prompt("Rome", target="e", foil="x"),
    wb.Prompt("a b c d e f g h", target="a", foil="z"),
]
S = 82  # the tiny tokenizer's id of "s"
FIVE = ["gpt2", "llama", "gpt_neox", "gemma2", "qwen3"]
# As `close` of the engine's tests: norms that compute in float32 leave their roundings.
EXACT = ("gpt2", "gpt_neox")


def tolerance(family: str) -> dict[str, float]:
    return {"rtol": 1e-9, "atol": 1e-10} if family in EXACT else {"rtol": 2e-4, "atol": 2e-5}


def weight_gradients(family: str, text: str, target: int) -> tuple[wb.TorchModel, Any]:
    """A new model after autograd's own backward pass of -log p(target), with the same kernels."""
    hooked = wb.load(hf_model(family), tokenizer_of(family))
    batch = hooked.batch(text)
    last = torch.tensor([batch.ids.shape[1] - 1])
    logits = hooked.hf(
        input_ids=batch.ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        logits_to_keep=last,
    ).logits
    (-logits[0, 0].log_softmax(-1)[target]).backward()
    return hooked, batch


def gradient(hooked: wb.TorchModel, name: str, layer: int) -> Tensor:
    """[d_in, d_out] as autograd left it at the weight."""
    module = hooked.anatomy.map_module(name, layer)
    own = hooked.anatomy.map_outputs(name, layer)
    whole = module.weight.grad if type(module).__name__ == "Conv1D" else module.weight.grad.T
    return whole if own is None else whole[:, own]


@pytest.mark.parametrize("family", FIVE)
def test_factors_are_autograds_weight_gradients(family: str) -> None:
    """To 1e-12: the same operations on the same numbers, but for the order of a sum over tokens."""
    hooked, batch = weight_gradients(family, "The Eiffel Tower", 65)

    def loss(logits: Tensor, _: wb.Places) -> Tensor:
        return -logits.log_softmax(-1)[0, 65]

    maps = [(name, layer) for name in hooked.weights.maps for layer in (1, 2, LAYERS)]
    expected = {key: gradient(hooked, *key).clone() for key in maps}
    hooked.hf.zero_grad()
    for key, factors in hooked.factors(batch, loss, maps).items():
        formed = factors.x.T @ factors.delta
        assert float((formed - expected[key]).abs().max() / expected[key].abs().max()) < 1e-12
    assert all(p.grad is None and p.requires_grad for p in hooked.hf.parameters())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_numbers_are_those_of_the_formed_gradient(family: str) -> None:
    hooked, _ = weight_gradients(family, "The Eiffel Tower", S)
    result = BackwardLens(maps=["all"], controls=False, top_k=3)(hooked, PROMPTS[0])
    data = result.data.isel(variant=0)
    for name in hooked.weights.maps:
        for layer in (1, LAYERS):
            formed = gradient(hooked, name, layer)
            one = data.sel(map=name, layer=layer)
            size = formed.norm().item()
            np.testing.assert_allclose(one["gradient_norm"].values, size, rtol=1e-5)
            values = torch.linalg.svdvals(formed)[:3].numpy()
            np.testing.assert_allclose(
                one["singular_value"].values[0], values, rtol=1e-5, atol=1e-6 * size
            )
            assert one["share"].sum().item() == pytest.approx(1, abs=1e-5)


def test_shares_are_inner_products_with_the_gradient() -> None:
    torch.manual_seed(0)
    one = wb.Factors(torch.randn(6, 5).double(), torch.randn(6, 4).double())
    whole = one.x.T @ one.delta
    parts = [(torch.outer(x, d) * whole).sum() for x, d in zip(one.x, one.delta, strict=True)]
    torch.testing.assert_close(shares(one), torch.stack(parts) / whole.square().sum())
    torch.testing.assert_close(gradient_norm(one), whole.norm())
    torch.testing.assert_close(spectrum(one, 4), torch.linalg.svdvals(whole)[:4])
    assert torch.isnan(spectrum(wb.Factors(one.x[:2], one.delta[:2]), 3)).tolist() == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "granite"])
def test_the_last_shift_in_closed_form(family: str) -> None:
    """At the last block's output -delta is J^T (onehot - p), J the Jacobian of the last step alone."""
    hooked = model(family)
    state = hooked.capture(PROMPTS[0], "resid_post", "last")["resid_post", LAYERS].requires_grad_()
    (wanted,) = torch.autograd.grad(hooked.readout(state).log_softmax(-1)[0, S], state)
    name = "ff2" if family == "gpt2" else "down"
    lens = BackwardLens(
        maps=[name], site="residual", controls=False, positions="last", readout="paper"
    )
    data = lens(hooked, PROMPTS[0]).data.isel(variant=0, place=0).sel(layer=LAYERS)
    bottom = hooked.readout(-wanted)[0].detach()
    ids = data["table_id"].values[0].tolist()
    assert ids == bottom.argsort()[:5].tolist()
    np.testing.assert_allclose(data["table_score"].values[0], -bottom[ids], rtol=1e-4, atol=1e-5)
    assert data["skip_cosine"].item() == pytest.approx(1, abs=1e-6)
    assert data["rest_norm"].item() <= 1e-6 * wanted.norm()


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "olmo2", "gpt_neox"])
def test_the_rest_is_the_shift_less_the_skip_path(family: str) -> None:
    """Against autograd at the states themselves, also where a norm or a factor stands between."""
    hooked = model(family)

    def loss(logits: Tensor, _: wb.Places) -> Tensor:
        return -logits.log_softmax(-1)[0, S]

    states = hooked.grad(PROMPTS[0], loss, ["resid_post"])
    name = "ff2" if "ff2" in hooked.weights.maps else "down"
    lens = BackwardLens(maps=[name, "o"], site="residual", controls=False, dominant=None)
    data = lens(hooked, PROMPTS[0]).data.isel(variant=0)
    last = states["resid_post", LAYERS]
    for layer in range(1, LAYERS + 1):
        here = states["resid_post", layer]
        one = data.sel(map=name, layer=layer)
        np.testing.assert_allclose(
            one["rest_norm"], (here - last).norm(dim=-1), **tolerance(family)
        )
    where = hooked.grad(PROMPTS[0], loss, ["attn_out"])
    rest = (where["attn_out", 2] - last).norm(dim=-1)
    np.testing.assert_allclose(data.sel(map="o", layer=2)["rest_norm"], rest, **tolerance(family))


def test_one_target_gives_the_last_gradient_rank_one_and_two_give_two() -> None:
    lens = BackwardLens(maps=["ff2"], controls=False)
    for target, rank in (("s", 1), ("st", 2)):
        result = lens(model("gpt2"), wb.Prompt("The Eiffel", target=target))
        values = (
            result.data["singular_value"].isel(variant=0, map=0, place=0).sel(layer=LAYERS).values
        )
        assert (values > 1e-6 * values[0]).sum() == rank


def test_a_long_target_is_the_sum_of_its_tokens() -> None:
    """Factors of the whole against those of each token's loss at its own position."""
    hooked = model("gpt2")
    result = BackwardLens(maps=["ff2"], controls=False)(
        hooked, wb.Prompt("The Eiffel", target="st!")
    )
    assert result.data["token"].values.tolist()[-2:] == ["s", "t"]
    text = wb.Prompt("The Eiffelst")

    def loss(logits: Tensor, _: wb.Places) -> Tensor:
        chances = logits.log_softmax(-1)
        ids = [ord(c) - 33 for c in "st!"]  # the tiny tokenizer's ids of printable bytes
        return -sum(chances[place, i] for place, i in zip((9, 10, 11), ids, strict=True))

    one = hooked.factors(text, loss, [("ff2", 2)], at="all")["ff2", 2]
    found = result.data.isel(variant=0, map=0).sel(layer=2)
    np.testing.assert_allclose(found["delta_norm"], one.delta.norm(dim=-1), rtol=1e-9)
    logits = hooked.capture(text, ["logits"])["logits", LAYERS]
    np.testing.assert_allclose(result.data["loss"].values[0], float(loss(logits, None)), rtol=1e-9)  # type: ignore[arg-type]


def test_the_rank_is_of_the_token_that_is_predicted_there() -> None:
    """At the last block the shift at each place of a long target points to its own token."""
    prompts = [wb.Prompt("The Eiffel", target="st!", id="long"), wb.Prompt("Rome", target="e")]
    lens = BackwardLens(maps=["ff2"], dominant=None)
    data = lens(model("gpt2"), prompts).data
    long = data.isel(place=np.flatnonzero(data.prompt.values == "long"), map=0).sel(layer=LAYERS)
    here = long.sel(variant="model")
    assert here.aimed_id.values.tolist() == [82] * 10 + [83, 0]  # "s", then "t" and "!"
    assert here.target_rank.values[-3:].tolist() == [1, 1, 1]
    assert here.rest_rank.isnull().all()
    random = long.sel(variant="random target")
    assert random.aimed_id.values.tolist() != here.aimed_id.values.tolist()
    assert random.target_rank.values[-3:].tolist() == [1, 1, 1]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "mixtral"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_batch_is_its_prompts_one_by_one(family: str, padding: Any) -> None:
    hooked = model(family)
    lens = BackwardLens(maps=["attention" if family == "mixtral" else "all"], top_k=2)
    (batch,) = wb.measure(hooked, PROMPTS, [lens], padding=padding)
    for index, prompt in enumerate(PROMPTS):
        single = lens(hooked, prompt).data
        mine = batch.data.isel(place=(batch.data["prompt"] == index).values)
        for name in ("x_norm", "delta_norm", "share", "target_rank", "rest_norm", "loss"):
            np.testing.assert_allclose(
                mine[name].values, single[name].values, rtol=1e-3, atol=1e-6, err_msg=name
            )


def test_dominant_positions_are_those_of_largest_share() -> None:
    hooked = model("gpt2")
    whole = BackwardLens(maps=["ff2"], controls=False, dominant=None)(hooked, PROMPTS[0]).data
    some = BackwardLens(maps=["ff2"], controls=False, dominant=2)(hooked, PROMPTS[0]).data
    for layer in range(1, LAYERS):  # of the last layer's gradient one position has all
        share = abs(whole["share"].isel(variant=0, map=0).sel(layer=layer).values)
        read = np.flatnonzero(some["table_id"].isel(variant=0, map=0, k=0).sel(layer=layer) >= 0)
        assert set(read) == set(share.argsort()[-2:])
        one, two = (
            d["table_id"].isel(variant=0, map=0, place=read).sel(layer=layer) for d in (whole, some)
        )
        assert np.array_equal(one, two)


@pytest.fixture(scope="module")
def atlas() -> wb.Result:
    """Facts of the bundled model."""
    facts = wb.PromptSet.read(prompts_path("facts"))
    return BackwardLens(maps=["ff2"], positions="last")(wb.load(), facts.subset(range(60)))


def test_the_shift_points_to_any_target_of_any_model(atlas: wb.Result) -> None:
    """The trap: the last norm and the unembedding alone put the target first, trained or not."""
    ranks = atlas.data["target_rank"].isel(map=0)
    for variant in ("model", "random target", "twin"):
        assert np.nanmedian(ranks.sel(variant=variant), axis=1).max() <= 2  # of 2176


def test_what_is_left_without_the_skip_path_is_the_models_own(atlas: wb.Result) -> None:
    """In the late layers of the trained model alone does the rest favour its target."""
    rest = atlas.data["rest_rank"].isel(map=0)
    medians = {v: np.nanmedian(rest.sel(variant=v, layer=[4, 5])) for v in rest["variant"].values}
    assert medians["model"] < medians["random target"] / 2
    assert medians["model"] < medians["twin"] / 2
    assert atlas.data["rest_norm"].sel(layer=6).max() == 0


def test_rows_keep_their_keys(atlas: wb.Result) -> None:
    first = atlas.rows()[0]
    keys = ["prompt", "map", "layer", "position", "token", "x_norm", "delta_norm", "share"]
    assert list(first)[: len(keys)] == keys
    assert first["imprint"] is None
    last = atlas.rows()[5]
    assert (last["layer"], last["shift"][0][0]) == (6, last["target"])
    assert isinstance(first["target_rank"], int)
    assert len(atlas.rows()) == 60 * 6


def test_the_figure_has_tables_controls_and_shares() -> None:
    result = BackwardLens()(wb.load(), wb.Prompt("The capital of France is", target=" Paris"))
    panels = {panel.name: panel for panel in BackwardLens.panels(result.data)}
    assert set(panels) == {
        "ff1-imprint",
        "ff1-rank",
        "ff2-shift",
        "ff2-rank",
        "ff1-share",
        "ff2-share",
    }
    controls = {name: line.control for name, line in panels["ff2-rank"].lines.items()}
    assert controls == {"shift": False, "rest": False, "random: rest": True, "twin: rest": True}
    titles = [note.text for note in result.plot(selected=(3, 4)).layout.annotations]
    assert titles[:2] == ["<b>ff1, position 4</b>", "<b>ff2, position 4</b>"]
    said = dict(BackwardLens.facts(result.data, layer=6))
    assert said["ff2: rank of ·Paris, shift"] == "1"
    assert BackwardLens.facts(result.data, layer=0) == []
    with pytest.raises(wb.ResultError, match="no map 'up'"):
        result.plot(map="up")


def test_difference_is_the_foils_logit_less_the_targets() -> None:
    hooked = model("gpt2")
    result = BackwardLens(maps=["ff2"], loss="difference", controls=False)(hooked, PROMPTS[0])
    logits = hooked.capture(PROMPTS[0], "logits", "last")["logits", LAYERS][0]
    prompt = hooked.encode(PROMPTS[0])
    expected = logits[prompt.foil] - logits[prompt.target]
    assert result.data["loss"].values[0, 0] == pytest.approx(float(expected), rel=1e-6)


def test_a_small_loss_keeps_its_digits() -> None:
    """Where logsumexp(logits) - logit would lose them, and the gradient at the target with them."""
    hooked = model("gpt2")
    aim = Aim.of(hooked, hooked.batch(PROMPTS[1]), against_foil=False)
    where, target = aim.batch.places(aim.at), hooked.encode(PROMPTS[1]).target
    logits = torch.randn(1, hooked.vocab_size, generator=torch.Generator().manual_seed(0))
    for size in (-20.0, 0.0, 10.0, 20.0, 40.0):
        logits[0, target] = size
        here, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
        loss = aim.losses(here, where)[0]
        others = torch.cat([exact[0, :target], exact[0, target + 1 :]]).logsumexp(0)
        expected = torch.log1p((others - exact[0, target]).exp())
        (slope,), (known,) = (
            torch.autograd.grad(value, at) for value, at in ((loss, here), (expected, exact))
        )
        # float32's eps over 257 terms, and of a logit of 40
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(slope.double(), known, rtol=1e-5, atol=0)


def test_half_precision_says_so() -> None:
    result = BackwardLens(controls=False)(
        wb.load("atlas", dtype="bfloat16"), wb.Prompt("The", target=" the")
    )
    (remark,) = result.provenance["remarks"]
    assert remark.startswith("bfloat16: logits are rounded")
    assert BackwardLens().remarks(wb.load()) == []


SAME = wb.Prompt("abc", target="d", foil="d")


@pytest.mark.parametrize(
    ("family", "settings", "prompt", "message"),
    [
        ("gpt2", {}, wb.Prompt("abc"), "prompt 'abc' has no target: give one"),
        ("gpt2", {"loss": "difference"}, wb.Prompt("abc", target="d"), "has no foil: give one"),
        ("gpt2", {"loss": "difference"}, SAME, "target and foil are the same token"),
        ("gpt2", {}, wb.Prompt("abc", target="de", foil="f"), "has 2 tokens and there is a foil"),
        (
            "llama",
            {"maps": ["ff1"]},
            SAME,
            "llama has no linear map 'ff1': expected one of gate, up",
        ),
        ("mixtral", {}, SAME, "no linear maps of the MLP .* use maps=attention"),
        ("mixtral", {"maps": ["up"]}, SAME, "has no linear map 'up': each token goes to experts"),
        ("bert", {}, wb.Prompt("a[MASK]c", target="d"), "its head is no linear map"),
        ("t5", {}, wb.Prompt("abc", target="de"), "a target of several tokens needs a text"),
        ("gpt2", {"top_k": 300}, SAME, "top_k is 300: the vocabulary has 257"),
    ],
)
def test_bad_input_is_refused(
    family: str, settings: dict[str, Any], prompt: wb.Prompt, message: str
) -> None:
    with pytest.raises(wb.WorkbenchError, match=message):
        BackwardLens(**settings)(model(family), prompt)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"maps": ["ff3"]}, "maps \\['ff3'\\]: expected some of mlp, attention, all, ff1"),
        ({"readout": "odder"}, "readout is 'odder': expected one of odd, paper, normalized"),
        ({"top_k": 0}, "top_k is 0"),
        ({"seed": "abc"}, "seed is 'abc': expected a whole number from 0"),
        ({"seed": -1}, "seed is -1"),
        ({"dominant": 1.5}, "dominant is 1.5"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        BackwardLens(**settings)


def test_engines_and_stores_without_gradients_refuse(tmp_path: Any) -> None:
    other = wb.load(hf_model("gpt2"), tokenizer(), engine="nnsight")
    with pytest.raises(wb.UnsupportedError, match="nnsight engine has no weights"):
        BackwardLens()(other, SAME)
    store = wb.capture(
        wb.load(), [wb.Prompt("The", target=" the")], sites=["resid_post"], out=tmp_path / "s"
    )
    with pytest.raises(wb.UnsupportedError, match="backward_lens runs the model itself"):
        wb.measure(store, [BackwardLens()])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_modules_that_hooks_do_not_see_through_are_refused() -> None:
    hooked = wb.load(hf_model("gpt2"), tokenizer())
    hooked.hf.transformer.h[1].compile()
    with pytest.raises(wb.UnsupportedError, match="transformer.h.1 is compiled"):
        BackwardLens(controls=False)(hooked, SAME)
    for compiled in (hooked.hf, torch.compile(hf_model("gpt2"))):
        with pytest.raises(wb.ModelError, match="the model is compiled"):
            wb.load(compiled, tokenizer())
    checkpointed = hf_model("gpt2")
    checkpointed.activation_checkpointing_enable()
    with pytest.raises(wb.UnsupportedError, match="activation checkpointing on"):
        BackwardLens(controls=False)(wb.load(checkpointed, tokenizer()), SAME)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    broken = hf_model("gpt2")
    with torch.no_grad():
        broken.transformer.ln_f.weight[0] = torch.inf
    hooked = wb.load(hf_model("gpt2"), tokenizer())
    hooked.hf.load_state_dict(broken.state_dict())
    with pytest.raises(wb.ModelError, match="expected a finite number"):
        BackwardLens(controls=False)(hooked, SAME)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_bridge_gives_the_same(family: str) -> None:
    from tests.models.bridges import bridge

    name = "ff2" if family == "gpt2" else "down"
    lens = BackwardLens(maps=[name], controls=False)
    mine, theirs = (lens(m, PROMPTS).data for m in (model(family), bridge(family)))
    np.testing.assert_allclose(theirs["delta_norm"], mine["delta_norm"], rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(theirs["target_rank"], mine["target_rank"])

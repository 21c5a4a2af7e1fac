"""A model of two stacks against Hugging Face: encoder, decoder and the attention between them."""

from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from lenses.logit.lens import LogitLens
from tests.models.test_engine import CLOSE32, snapshot
from tests.tiny import LAYERS, TEXTS, encoder_tokenizer, hf_model, model
from workbench.models import Read
from workbench.store.capture import capture

T5 = ["t5", "t5_gated"]
START = 259
ENCODER_LAYERS = 2


def own_output(family: str, text: str) -> Any:
    """Hugging Face's own pass over one text and the start token, in eager attention."""
    hf = hf_model(family)
    hf.set_attn_implementation("eager")
    coded = encoder_tokenizer()(text, return_tensors="pt")
    start = torch.tensor([[START]])
    with torch.no_grad():
        return hf(
            input_ids=coded["input_ids"],
            decoder_input_ids=start,
            output_hidden_states=True,
            output_attentions=True,
        )


@pytest.mark.parametrize("family", T5)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_both_stacks_equal_hugging_face(family: str, padding: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS, padding)
    encoder = hooked.capture(batch, ["encoder.embed", "encoder.resid_post", "encoder.final_norm"])
    decoder = hooked.capture(batch, ["embed", "resid_post", "final_norm", "logits"])
    for row, text in enumerate(TEXTS):
        out = own_output(family, text)
        mine = encoder.places.row == row
        states = encoder.stack("encoder.resid_post")[:, mine]
        expected = torch.cat(out.encoder_hidden_states)
        torch.testing.assert_close(states[:-1], expected[:-1], **CLOSE32)
        normed = encoder["encoder.final_norm", ENCODER_LAYERS][mine]
        torch.testing.assert_close(normed, out.encoder_last_hidden_state[0], **CLOSE32)
        own = torch.cat(out.decoder_hidden_states)[:, 0]
        torch.testing.assert_close(decoder.stack("resid_post")[:-1, row], own[:-1], **CLOSE32)
        torch.testing.assert_close(decoder["final_norm", LAYERS][row], own[-1], **CLOSE32)
        torch.testing.assert_close(decoder["logits", LAYERS][row], out.logits[0, 0], **CLOSE32)
    assert decoder.places.token.tolist() == [START] * len(TEXTS)
    assert decoder.places.position.tolist() == [0] * len(TEXTS)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_attention_to_the_encoder(padding: str) -> None:
    hooked = model("t5")
    batch = hooked.batch(TEXTS, padding)
    sites = ["cross_pattern", "cross_z", "cross_attn_out", "pattern", "z"]
    caught = hooked.capture(batch, sites)
    for row, text in enumerate(TEXTS):
        out, length = own_output("t5", text), len(text) + 2
        for layer in range(1, LAYERS + 1):
            pattern = caught["cross_pattern", layer][row]
            own = out.cross_attentions[layer - 1][0, :, 0]
            torch.testing.assert_close(pattern[:, :length], own, **CLOSE32)
            assert pattern[:, length:].abs().sum() == 0
    for layer in range(1, LAYERS + 1):
        project = hooked.anatomy.part(layer, "layer.1.EncDecAttention.o")
        out_of_z = project(caught["cross_z", layer].flatten(1)).detach()
        torch.testing.assert_close(out_of_z, caught["cross_attn_out", layer], **CLOSE32)


def test_encoder_patterns_equal_hugging_face() -> None:
    found = model("t5").capture(TEXTS[0], ["encoder.pattern"])
    own = own_output("t5", TEXTS[0]).encoder_attentions
    for layer in range(1, ENCODER_LAYERS + 1):
        expected = own[layer - 1][0].transpose(0, 1)
        torch.testing.assert_close(found["encoder.pattern", layer], expected, **CLOSE32)


@pytest.mark.parametrize("family", T5)
def test_contributions_add_up_in_both_stacks(family: str) -> None:
    hooked = model(family)
    own = hooked.capture(
        TEXTS, ["resid_pre", "resid_post", "attn_out", "cross_attn_out", "mlp_out"]
    )
    total = sum(own.stack(s) for s in ("resid_pre", "attn_out", "cross_attn_out", "mlp_out"))
    torch.testing.assert_close(total, own.stack("resid_post")[1:], **CLOSE32)
    assert own.stack("cross_attn_out").abs().min() > 0
    names = ["encoder.resid_pre", "encoder.resid_post", "encoder.attn_out", "encoder.mlp_out"]
    read = hooked.capture(TEXTS, names)
    pre, post, attn, mlp = (read.stack(name) for name in names)
    torch.testing.assert_close(pre + attn + mlp, post[1:], **CLOSE32)


@pytest.mark.parametrize("family", T5)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_restart_from_every_layer_of_both_stacks_is_exact(family: str, padding: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS, padding)
    full = hooked.capture(batch, ["resid_post", "logits"])
    for layer in range(LAYERS + 1):
        again = hooked.tail(batch, layer, full["resid_post", layer][:, None])
        assert torch.equal(again["logits", LAYERS], full["logits", LAYERS])
    encoder = hooked.encoder
    states = encoder.capture(batch, ["resid_post", "final_norm"])
    for layer in range(ENCODER_LAYERS + 1):
        garbage = torch.full((*batch.ids.shape, 16), 7.0, dtype=torch.float64)
        resid = states.places.scatter(garbage, states["resid_post", layer])
        again = encoder.tail(batch, layer, resid, ["final_norm"])
        expected = states["final_norm", ENCODER_LAYERS]
        assert torch.equal(again["final_norm", ENCODER_LAYERS], expected)


@pytest.mark.parametrize("family", T5)
def test_one_block_and_its_branches(family: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS)
    full = hooked.capture(
        batch, ["resid_pre", "resid_post", "attn_out", "cross_attn_out", "mlp_out"]
    )
    for layer in range(1, LAYERS + 1):
        before = full["resid_pre", layer]
        mid = before + full["attn_out", layer] + full["cross_attn_out", layer]
        for part, states, site in [
            ("block", before, "resid_post"),
            ("attention", before, "attn_out"),
            ("mlp", mid, "mlp_out"),
        ]:
            out = hooked.block(batch, layer, states[:, None], part)[:, 0]
            torch.testing.assert_close(out, full[site, layer], **CLOSE32)


def test_an_edit_in_the_encoder_moves_the_decoder() -> None:
    """Each prompt with another's encoder states is answered as that other prompt."""
    hooked = model("t5")
    texts = ["abc", "xyz"]
    clean = hooked.capture(texts, ["logits"])["logits", LAYERS]
    states = hooked.capture(texts, ["encoder.resid_post"])["encoder.resid_post", ENCODER_LAYERS]
    swapped = torch.cat([states[5:], states[:5]])
    edit = wb.Edit.set(("encoder.resid_post", ENCODER_LAYERS), swapped)
    found = hooked.intervene(texts, [edit])["logits", LAYERS]
    torch.testing.assert_close(found, clean.flip(0), **CLOSE32)
    same = wb.Edit.set(("encoder.resid_post", ENCODER_LAYERS), states)
    unmoved = hooked.intervene(hooked.batch(texts, "left"), [same])["logits", LAYERS]
    torch.testing.assert_close(unmoved, clean, **CLOSE32)


@pytest.mark.parametrize("site", ["resid_post", "attn_out", "cross_attn_out", "mlp_out", "cross_z"])
def test_an_edit_in_the_decoder(site: str) -> None:
    hooked = model("t5")
    clean = hooked.capture(TEXTS, [(site, 2), "logits"])
    same = hooked.intervene(TEXTS, [wb.Edit.set((site, 2), clean[site, 2])])
    torch.testing.assert_close(same["logits", LAYERS], clean["logits", LAYERS], **CLOSE32)
    other = hooked.intervene(TEXTS, [wb.Edit.add((site, 2), torch.ones_like(clean[site, 2]))])
    assert (other["logits", LAYERS] - clean["logits", LAYERS]).abs().max() > 0.01


def loss(logits: torch.Tensor, places: wb.Places) -> torch.Tensor:
    return -logits.log_softmax(-1)[:, 65].sum()


@pytest.mark.parametrize(
    "where",
    [("resid_post", 2), ("cross_attn_out", 2), ("encoder.resid_post", 1), ("encoder.mlp_out", 2)],
)
def test_finite_differences(where: tuple[str, int]) -> None:
    hooked = model("t5")
    gradient = hooked.grad(TEXTS[0], loss, [where])[where]
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(1)).double()
    direction /= direction.norm()
    step = 1e-2  # float32 norms round the loss, about 28, by 2e-6

    def at(scale: float) -> float:
        found = hooked.intervene(TEXTS[0], [wb.Edit.add(where, scale * direction)])
        return float(loss(found["logits", LAYERS], found.places))

    slope = (at(step) - at(-step)) / (2 * step)
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("site", ["cross_pattern", "encoder.pattern"])
def test_gradients_of_patterns_end_with_the_prompt(site: str) -> None:
    hooked = model("t5")
    batch = hooked.grad(hooked.batch(TEXTS, "left"), loss, [site])
    for row, text in enumerate(TEXTS):
        single, mine = hooked.grad(text, loss, [site]), batch.places.row == row
        for where, value in single.values.items():
            found, length = batch.values[where][mine], len(text) + 2
            torch.testing.assert_close(found[..., :length], value, **CLOSE32)
            assert found[..., length:].abs().sum() == 0


@pytest.mark.parametrize(
    ("family", "maps"),
    [("t5", ["ff1", "ff2", *"qkvo"]), ("t5_gated", ["gate", "up", "down", *"qkvo"])],
)
def test_factors_give_autograd_weight_gradients(family: str, maps: list[str]) -> None:
    hooked = wb.load(hf_model(family), encoder_tokenizer())
    assert list(hooked.anatomy.family.maps) == maps
    found = hooked.factors(TEXTS[0], loss, [(name, 2) for name in maps])
    coded = encoder_tokenizer()(TEXTS[0], return_tensors="pt")
    logits = hooked.hf(coded["input_ids"], decoder_input_ids=torch.tensor([[START]])).logits
    (-logits[0, 0].log_softmax(-1)[65]).backward()
    for name in maps:
        formed = found[name, 2].delta.T @ found[name, 2].x
        weight = hooked.anatomy.part(2, hooked.anatomy.map_path(name)).weight
        torch.testing.assert_close(formed, weight.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", T5)
def test_the_lens_reads_the_decoder(family: str) -> None:
    data = LogitLens(top_k=260)(model(family), TEXTS).data
    for row, text in enumerate(TEXTS):
        last = data.sel(site="resid_post", layer=LAYERS, place=row)
        own = own_output(family, text).logits[0, 0].log_softmax(-1)
        order = torch.from_numpy(last.top_id.values)
        found = torch.from_numpy(last.top_logprob.values)
        torch.testing.assert_close(found, own[order], **CLOSE32)


def test_what_two_stacks_cannot_do_is_refused(tmp_path: Path) -> None:
    hooked = model("t5")
    with pytest.raises(
        wb.UnsupportedError, match="a store keeps .* one stack of blocks, and t5 has"
    ):
        capture(hooked, ["abc"], sites="resid_post", out=tmp_path / "acts")
    with pytest.raises(
        wb.SettingError, match="sites of the encoder and of the decoder in one read"
    ):
        hooked.capture("abc", ["resid_post", "encoder.resid_post"])
    with pytest.raises(wb.UnsupportedError, match="t5 has no resid_mid: its blocks have three"):
        hooked.capture("abc", ["resid_mid"])
    with pytest.raises(wb.UnsupportedError, match="t5 has no logits: it is an encoder"):
        hooked.capture("abc", ["encoder.logits"])
    with pytest.raises(
        wb.SettingError, match="position 3 is outside prompt 'abc': it has 1 tokens"
    ):
        hooked.capture("abc", ["resid_post"], positions=[3])
    with pytest.raises(wb.UnsupportedError, match="no keys_values"):
        hooked.keys_values("abc")
    prefix, last = model("gpt2").keys_values("a"), Read("encoder.resid_post", [-1])
    with pytest.raises(wb.UnsupportedError, match="t5 is no decoder alone: .* takes no prefix"):
        hooked.read(hooked.batch("abc"), [last], prefix=prefix)
    with pytest.raises(wb.UnsupportedError, match="encoder has no unembedding"):
        hooked.encoder.readout(torch.zeros(1, 16, dtype=torch.float64))
    edit = wb.Edit.set(("resid_post", 1), torch.zeros(16))
    with pytest.raises(wb.SettingError, match="cannot be seen in the encoder"):
        hooked.intervene("abc", [edit], ["encoder.resid_post"])


def test_a_model_without_a_start_token_is_refused() -> None:
    hf = hf_model("t5")
    hf.config.decoder_start_token_id = None
    with pytest.raises(wb.ModelError, match="set its config.decoder_start_token_id"):
        wb.load(hf, encoder_tokenizer())


def test_another_model_has_no_encoder() -> None:
    with pytest.raises(wb.UnsupportedError, match="gpt2 has no cross_attn_out: it has no encoder"):
        model("gpt2").capture("abc", ["cross_attn_out"])
    with pytest.raises(wb.SettingError, match="unknown site 'encoder.resid_post'"):
        model("gpt2").capture("abc", ["encoder.resid_post"])


def test_a_site_that_means_something_else_is_refused() -> None:
    hf = hf_model("t5")
    for layer, stack in ((1, hf.encoder), (2, hf.decoder)):
        stack.block[0].layer[layer].register_forward_hook(lambda module, args, out: out + 0.5)
    loaded = wb.load(hf, encoder_tokenizer())
    with pytest.raises(wb.ModelError, match="mlp_out is refused: resid_mid . mlp_out = resid_post"):
        loaded.capture("abc", ["encoder.mlp_out"])
    with pytest.raises(
        wb.ModelError,
        match="cross_attn_out is refused: resid_pre .* cross_attn_out .* fails by 0.5",
    ):
        loaded.capture("abc", ["cross_attn_out"])
    loaded.capture("abc", ["encoder.attn_out", "encoder.resid_post"])


@pytest.mark.parametrize("family", T5)
def test_nothing_is_left_behind(family: str) -> None:
    fresh = hf_model(family)
    hooked = wb.load(fresh, encoder_tokenizer())
    before = snapshot(fresh)
    hooked.capture(TEXTS[0], ["resid_post", "cross_pattern"])
    hooked.capture(TEXTS[0], ["encoder.resid_post"])
    hooked.grad(TEXTS[0], loss, ["encoder.resid_post"])
    with pytest.raises(ZeroDivisionError):
        hooked.intervene(TEXTS[0], [wb.Edit(("encoder.resid_post", 1), lambda *_: 1 / 0)])
    assert snapshot(fresh) == before

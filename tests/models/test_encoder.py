"""An encoder: masked words read with its own head, and what it does not have refused by name."""

from pathlib import Path

import pytest
import torch

import workbench as wb
from lenses.logit.lens import LogitLens
from tests.models.test_engine import CLOSE32
from tests.models.test_gradients import loss
from tests.tiny import LAYERS, TEXTS, encoder_tokenizer, hf_model, model
from workbench.models import Read
from workbench.store.capture import capture

MASKED = "The [MASK] Tower"
MASK_AT = 5  # behind [CLS] and four letters


def own_output(text: str) -> dict[str, torch.Tensor]:
    """What Hugging Face alone makes of one text."""
    coded = encoder_tokenizer()(text, return_tensors="pt")
    with torch.no_grad():
        out = model("bert").hf(**coded, output_hidden_states=True)
    return {"states": torch.cat(out.hidden_states), "logits": out.logits[0]}


@pytest.mark.parametrize("text", [*TEXTS, MASKED])
def test_states_and_logits_equal_hugging_face(text: str) -> None:
    caught = model("bert").capture(text, ["embed", "resid_post", "logits"])
    expected = own_output(text)
    torch.testing.assert_close(caught["embed", 0], expected["states"][0], **CLOSE32)
    torch.testing.assert_close(caught.stack("resid_post"), expected["states"], **CLOSE32)
    torch.testing.assert_close(caught["logits", LAYERS], expected["logits"], **CLOSE32)


def test_a_text_is_closed_once() -> None:
    hooked = model("bert")
    plain = hooked.encode(wb.Prompt("abc")).ids
    assert plain == tuple(encoder_tokenizer()("abc")["input_ids"])
    assert hooked.encode(wb.Prompt("[CLS]abc[SEP]")).ids == plain
    assert "opening and closing tokens" in hooked.provenance()["special_tokens"]


def test_every_token_sees_every_other() -> None:
    hooked = model("bert")
    assert not hooked.causal
    assert model("gpt2").causal
    first, second = (
        hooked.capture(text, ["resid_post"], positions=1)["resid_post", LAYERS]
        for text in ("abc", "abd")
    )
    assert (first - second).abs().max() > 0.01


def test_the_lens_of_a_masked_word() -> None:
    data = LogitLens(top_k=260, positions=[MASK_AT])(model("bert"), MASKED).data
    last = data.sel(site="resid_post", layer=LAYERS, place=0)
    own = own_output(MASKED)["logits"][MASK_AT].log_softmax(-1)
    order = torch.from_numpy(last.top_id.values)
    torch.testing.assert_close(torch.from_numpy(last.top_logprob.values), own[order], **CLOSE32)
    assert data.token.item() == "[MASK]"


def test_masked_words_are_a_role() -> None:
    twice = "[MASK]b[MASK]"
    data = LogitLens(positions="mask")(model("bert"), [MASKED, twice, "a[MASK]"]).data
    masked = encoder_tokenizer().mask_token_id
    expected = [
        (prompt, position)
        for prompt, text in enumerate([MASKED, twice, "a[MASK]"])
        for position, token in enumerate(encoder_tokenizer()(text)["input_ids"])
        if token == masked
    ]
    assert list(zip(data.prompt.values, data.position.values, strict=True)) == expected
    assert expected[:3] == [(0, MASK_AT), (1, 1), (1, 3)]


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("bert", r"prompt 'a\\nb' holds no mask token"),
        ("gpt2", "the tokenizer has no mask token"),
    ],
)
def test_no_masked_word_is_one_line(family: str, reason: str) -> None:
    with pytest.raises(wb.PromptError, match=reason) as caught:
        model(family).capture("a\nb", ["resid_post"], positions="mask")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stored_at", ["all", "mask"])
def test_a_store_knows_its_masked_words(tmp_path: Path, stored_at: str) -> None:
    live = model("bert")
    texts = [MASKED, "[MASK]b[MASK]"]
    capture(live, texts, sites="resid_post", positions=stored_at, out=tmp_path / "acts")
    store = wb.Store.open(tmp_path / "acts", device="cpu")
    stored, expected = (m.capture(texts, ["resid_post"], "mask") for m in (store, live))
    assert torch.equal(stored.places.position, expected.places.position)
    assert torch.equal(stored.stack("resid_post"), expected.stack("resid_post"))


def test_a_store_without_masked_words_says_so(tmp_path: Path) -> None:
    capture(model("bert"), ["abc"], sites="resid_post", positions="all", out=tmp_path / "acts")
    store = wb.Store.open(tmp_path / "acts", device="cpu")
    with pytest.raises(wb.PromptError, match="prompt 'abc' holds no mask token"):
        store.capture("abc", ["resid_post"], "mask")


def test_a_store_brings_the_masked_head_along(tmp_path: Path) -> None:
    live = model("bert")
    capture(live, [MASKED], sites="resid_post", out=tmp_path / "acts")
    lens = LogitLens(positions=[MASK_AT])
    stored, expected = (
        wb.measure(source, [MASKED], [lens])[0].data.drop_attrs()
        for source in (wb.Store.open(tmp_path / "acts", device="cpu"), live)
    )
    assert stored.identical(expected)


@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "resid_mid"])
def test_normalised_sums_have_no_contributions(site: str) -> None:
    with pytest.raises(wb.UnsupportedError, match=f"bert has no {site}: its blocks normalise"):
        model("bert").capture("abc", [site])


def test_what_needs_a_causal_model_is_refused() -> None:
    hooked = model("bert")
    with pytest.raises(
        wb.UnsupportedError, match="bert has no final_norm: its last norm is inside"
    ):
        hooked.capture("abc", ["final_norm"])
    with pytest.raises(wb.UnsupportedError, match="bert is no decoder alone: .* no keys_values"):
        hooked.keys_values("abc")
    prefix = model("gpt2").keys_values("a")
    with pytest.raises(wb.UnsupportedError, match="bert is no decoder alone: .* takes no prefix"):
        hooked.read(hooked.batch("abc"), [Read("resid_post", [-1])], prefix=prefix)
    states = torch.zeros(1, 5, 16, dtype=torch.float64)
    with pytest.raises(wb.UnsupportedError, match="bert has no attn_out"):
        hooked.block("abc", 1, states, part="attention")


def test_one_block() -> None:
    hooked = model("bert")
    batch = hooked.batch(["abc"])
    states = hooked.capture(batch, ["resid_post"]).stack("resid_post")
    for layer in range(1, LAYERS + 1):
        after = hooked.block(batch, layer, states[layer - 1][None])
        torch.testing.assert_close(after[0], states[layer], **CLOSE32)


def test_factors_give_autograd_weight_gradients() -> None:
    hooked = wb.load(hf_model("bert"), encoder_tokenizer())
    found = hooked.factors("abc", loss, [("ff1", 1), ("ff2", LAYERS)], at=2)
    logits = hooked.hf(**encoder_tokenizer()("abc", return_tensors="pt")).logits[0, 2]
    (-logits.log_softmax(-1)[65]).backward()
    blocks = hooked.hf.bert.encoder.layer
    for key, linear in [
        (("ff1", 1), blocks[0].intermediate.dense),
        (("ff2", LAYERS), blocks[LAYERS - 1].output.dense),
    ]:
        formed = found[key].delta.T @ found[key].x
        torch.testing.assert_close(formed, linear.weight.grad, rtol=1e-9, atol=1e-9)


def test_a_folder_is_loaded_with_its_masked_head(tmp_path: Path) -> None:
    hf_model("bert", torch.float32).save_pretrained(tmp_path)
    encoder_tokenizer().save_pretrained(tmp_path)
    loaded = wb.load(tmp_path)
    assert type(loaded.hf).__name__ == "BertForMaskedLM"
    expected = model("bert", torch.float32).capture(MASKED, ["logits"])["logits", LAYERS]
    torch.testing.assert_close(loaded.capture(MASKED, ["logits"])["logits", LAYERS], expected)

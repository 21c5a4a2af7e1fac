"""What other tools get wrong without a word: each as a test over every engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import transformers

import workbench as wb
from tests.tiny import LAYERS, ROUTED, TEXTS, hf_model, tokenizer_of
from workbench.conformance.leftovers import Snapshot
from workbench.conformance.oracle import Oracle
from workbench.models.engines import ENGINES

pytestmark = pytest.mark.parametrize("engine", list(ENGINES))

# Sums of some hundred terms of size ~10 in float64, but norms in float32 in most families.
CLOSE = {"rtol": 0, "atol": 1e-5}
ZERO = torch.zeros(16)


@cache
def loaded(family: str, engine: str) -> wb.Engine:
    return wb.load(hf_model(family), tokenizer_of(family), engine=engine)


def or_refused(call: Callable[[], Any], name: str) -> Any:
    """What `call` gives; None where it is refused, which has to be by name."""
    try:
        return call()
    except (wb.UnsupportedError, wb.ModelError) as refusal:
        message = str(refusal)
    assert name in message
    return None


def loaded_or_refused(family: str, engine: str) -> Any:
    return or_refused(lambda: loaded(family, engine), type(hf_model(family)).__name__)


def own_logits(model: wb.Engine, text: str) -> torch.Tensor:
    """Hugging Face's logits of one prompt, without hook, mask or padding."""
    hf = hf_model("gpt2")
    with torch.no_grad():
        return hf(torch.tensor([model.encode(wb.Prompt(text)).ids]), use_cache=False).logits[0]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "olmo2"])
def test_an_edit_of_resid_mid_moves_the_skip_connection_too(engine: str, family: str) -> None:
    value = torch.linspace(-1, 1, 16, dtype=torch.float64)
    edit = wb.Edit.set(("resid_mid", 2), value)
    found = loaded(family, engine).intervene(TEXTS, [edit], ["resid_post", "mlp_out"])
    torch.testing.assert_close(found["resid_post", 2], value + found["mlp_out", 2], **CLOSE)


def test_left_padding_has_positions_of_its_own(engine: str) -> None:
    """GPT-2 by itself counts padding as positions: more than 1 off in the logits."""
    model = loaded("gpt2", engine)
    batch = model.batch(TEXTS[:2], "left")
    found = model.capture(batch, ["logits"])
    expected = torch.cat([own_logits(model, text) for text in TEXTS[:2]])
    torch.testing.assert_close(found["logits", LAYERS], expected, **CLOSE)
    with torch.no_grad():
        raw = hf_model("gpt2")(batch.ids, attention_mask=batch.mask).logits
    assert (batch.places().gather(raw) - expected).abs().max() > 1


def test_the_last_state_is_not_the_normed_one(engine: str) -> None:
    """Hugging Face's hidden_states[-1] has been through the final norm."""
    model = loaded("llama", engine)
    found = model.capture(TEXTS[0], ["resid_post", "final_norm", "logits"])
    ids = torch.tensor([model.encode(wb.Prompt(TEXTS[0])).ids])
    with torch.no_grad():
        normed = hf_model("llama")(ids, output_hidden_states=True).hidden_states[-1][0]
    torch.testing.assert_close(found["final_norm", LAYERS], normed, **CLOSE)
    assert (found["resid_post", LAYERS] - normed).abs().max() > 1
    read = model.readout(found["resid_post", LAYERS])
    torch.testing.assert_close(read, found["logits", LAYERS], **CLOSE)


@pytest.mark.parametrize("family", ["falcon", "falcon_new", "falcon_alibi"])
def test_captures_are_copies_of_what_falcon_overwrites(engine: str, family: str) -> None:
    model = loaded_or_refused(family, engine)
    if model is None:
        return
    found = model.capture(TEXTS, ["resid_pre", "attn_out", "mlp_out", "resid_post"])
    sums = found.stack("resid_pre") + found.stack("attn_out") + found.stack("mlp_out")
    torch.testing.assert_close(sums, found.stack("resid_post")[1:], **CLOSE)
    assert (found.stack("attn_out") - found.stack("mlp_out")).abs().min() > 0


@pytest.mark.parametrize("family", ["gpt2", "bloom", "llama"])
def test_a_restart_takes_nothing_from_the_blocks_below(engine: str, family: str) -> None:
    """Other tokens, the same states: the same logits to the last bit."""
    model = loaded(family, engine)
    states = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(0)).double()
    for layer in range(1, LAYERS + 1):
        one, other = (
            model.tail(model.batch([model.encode(wb.Prompt(text))]), layer, states[:, :4])
            for text in (("abcd", "wxyz") if family != "llama" else ("abc", "xyz"))
        )
        assert torch.equal(one["logits", LAYERS], other["logits", LAYERS])


@pytest.mark.parametrize("family", ["gpt_neo", "gptj", "bloom", "falcon"])
@pytest.mark.parametrize("site", ["q", "k", "v", "pattern"])
def test_attention_in_its_own_code_is_refused_or_read_rightly(
    engine: str, family: str, site: str
) -> None:
    """These families accept an attention function and never call it."""
    model = loaded_or_refused(family, engine)
    if model is None:
        return
    found = or_refused(lambda: model.capture(TEXTS[0], [site]).stack(site), site)
    if found is None:
        return
    ids = model.encode(wb.Prompt(TEXTS[0])).ids
    states = Oracle(hf_model(family), ids).states(ids)
    expected = torch.stack([states[site, layer] for layer in range(1, LAYERS + 1)])
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("family", ["gpt_neox", "gptj", "phi", "cohere"])
def test_parallel_blocks_have_no_resid_mid(engine: str, family: str) -> None:
    model = loaded_or_refused(family, engine)
    if model is None:
        return
    with pytest.raises(wb.UnsupportedError, match=r"no resid_mid.*parallel"):
        model.capture("abc", ["resid_mid"])
    with pytest.raises(wb.UnsupportedError, match=r"no resid_mid.*parallel"):
        model.intervene("abc", [wb.Edit.set(("resid_mid", 1), ZERO)])


@pytest.mark.parametrize("family", ROUTED)
def test_fused_experts_have_no_mlp_act(engine: str, family: str) -> None:
    model = loaded_or_refused(family, engine)
    if model is not None:
        with pytest.raises(wb.UnsupportedError, match="mlp_act"):
            model.capture("abc", ["mlp_act"])


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_no_pass_keeps_a_cache(engine: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(family, engine)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a cache was written")

    monkeypatch.setattr(transformers.DynamicCache, "update", refuse)
    model.capture("abc", ["resid_post", "logits"])
    model.intervene("abc", [wb.Edit.set(("mlp_out", 2), ZERO)])
    model.grad("abc", lambda logits, _: logits.sum(), ["resid_post"])


def test_two_threads_do_not_see_each_other(engine: str) -> None:
    model = loaded("gpt2", engine)
    zero = wb.Edit.set(("mlp_out", 1), ZERO)

    def clean() -> torch.Tensor:
        return model.capture(TEXTS[1], ["logits"])["logits", LAYERS]

    def edited() -> torch.Tensor:
        return model.intervene(TEXTS[1], [zero])["logits", LAYERS]

    sides = {call: call() for call in (clean, edited)}
    assert (sides[clean] - sides[edited]).abs().max() > 0.01
    wrong = []

    def work(call: Callable[[], torch.Tensor]) -> None:
        wrong.extend(1 for _ in range(40) if not torch.equal(call(), sides[call]))

    threads = [threading.Thread(target=work, args=(call,)) for call in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bloom"])
def test_loading_leaves_the_model_as_it_was(engine: str, family: str) -> None:
    """Nothing of it is replaced, though its config names no architecture."""
    hf = hf_model(family)
    hf.config.architectures = None
    before = Snapshot(hf, [65, 66])
    wb.load(hf, tokenizer_of(family), engine=engine).capture("abc", ["resid_post"])
    assert before.changes() == []
    assert not hasattr(object(), "save")


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen3", "gemma2", "bloom"])
def test_engines_agree(engine: str, family: str) -> None:
    sites = ["embed", "resid_pre", "resid_post", "attn_out", "mlp_out", "z", "final_norm", "logits"]
    found = loaded(family, engine).capture(TEXTS, sites)
    expected = loaded(family, "torch").capture(TEXTS, sites)
    for site, value in expected.values.items():
        torch.testing.assert_close(found[site], value, **CLOSE)


def test_factors_are_the_same_or_refused_by_name(engine: str) -> None:
    def loss(logits: torch.Tensor, _: wb.Places) -> torch.Tensor:
        return -logits.log_softmax(-1)[:, 65].sum()

    maps = [("ff1", 1), ("ff2", LAYERS)]
    expected = loaded("gpt2", "torch").factors(TEXTS, loss, maps)
    found = or_refused(lambda: loaded("gpt2", engine).factors(TEXTS, loss, maps), "factors")
    if found is None:
        return
    for name, factors in expected.items():
        torch.testing.assert_close(found[name].x, factors.x, **CLOSE)
        torch.testing.assert_close(found[name].delta, factors.delta, **CLOSE)

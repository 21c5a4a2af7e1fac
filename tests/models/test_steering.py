"""Steered views: what they add, where, and that they leave nothing behind; texts continued."""

import json

import numpy as np
import pytest
import torch

import workbench as wb
from lenses import BackwardLens, InputAttribution, LogitLens
from probes import Ablate, AttributionPatch, CausalTrace, Patch
from tests.tiny import LAYERS, TEXTS, hf_model, model, tokenizer
from workbench.results import called

LOGITS = ("logits", LAYERS)


def steer(hooked: wb.TorchModel, site: str, strength: float = 1.5, layer: int = 2) -> wb.Steer:
    """Along a random vector, as wide as the site."""
    torch.manual_seed(3)
    shape = hooked.capture("ab", [(site, layer)])[site, layer].shape[1:]
    return wb.Steer((site, layer), torch.randn(shape, dtype=torch.float64), strength)


# parallel branches, norms after branches, a multiplier of branches: each adds in its own way
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "granite", "bloom"])
@pytest.mark.parametrize("site", ["resid_post", "mlp_out", "mlp_act", "z"])
def test_a_view_adds_what_an_edit_of_each_pass_adds(family: str, site: str) -> None:
    """Equal to 1e-12: the same sums, but for the order of an addition."""
    hooked = model(family)
    one = steer(hooked, site)
    plain = hooked.capture(TEXTS, "logits")[LOGITS]
    view = hooked.with_steering([one])
    sites = [(site, 2), "logits"]
    for padding in ("left", "right"):
        batch = hooked.batch(TEXTS, padding)  # type: ignore[arg-type]
        expected = hooked.intervene(batch, [one.edit()], sites)
        found = view.capture(batch, sites)
        for where in expected.values:
            torch.testing.assert_close(found[where], expected[where], rtol=0, atol=1e-12)
    assert (found[LOGITS] - hooked.capture(batch, "logits")[LOGITS]).abs().max() > 1e-3
    assert hooked.capture(TEXTS, "logits")[LOGITS].equal(plain)  # nothing is left behind
    # at 0 the very same numbers; twice is both together
    assert (
        hooked.with_steering([steer(hooked, site, 0.0)])
        .capture(TEXTS, "logits")[LOGITS]
        .equal(plain)
    )
    twice = view.with_steering([one]).capture(batch, "logits")[LOGITS]
    both = hooked.intervene(batch, [steer(hooked, site, 3.0).edit()])[LOGITS]
    torch.testing.assert_close(twice, both, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_a_restart_adds_nothing_a_second_time(layer: int) -> None:
    view = model("gpt2").with_steering([steer(model("gpt2"), "resid_post")])
    batch = view.batch(TEXTS)
    whole = view.capture(batch, ["resid_post", "logits"])
    states = torch.zeros(*batch.ids.shape, 16, dtype=torch.float64)
    states = whole.places.scatter(states, whole["resid_post", layer])
    if layer == LAYERS:
        torch.testing.assert_close(view.readout(whole["resid_post", layer]), whole[LOGITS])
    # 1e-12: the same blocks on the same states
    torch.testing.assert_close(
        view.tail(batch, layer, states)[LOGITS], whole[LOGITS], rtol=0, atol=1e-12
    )


def test_hugging_face_generates_under_the_views_lock_what_the_view_does() -> None:
    """Against transformers' own cached generation, steered and not; and against a hook of its own."""
    hooked = model("gpt2")
    one = steer(hooked, "resid_post", 4.0)
    view = hooked.with_steering([one])
    ids = torch.tensor([hooked.encode(wb.Prompt("Rome is")).ids])
    own = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 256}
    mask = torch.ones_like(ids)
    texts = []
    for each in (hooked, view):
        with each.lock, torch.no_grad():
            out = each.hf.generate(ids, attention_mask=mask, **own)[0, ids.shape[1] :]
        text = tokenizer().decode(out[out != 256])
        assert each.generate("Rome is", 8) == [text]
        texts.append(text)
    assert texts[0] != texts[1]
    assert hooked.generate("Rome is", 8, edits=[one.edit()]) == texts[1:]
    handle = hooked.hf.transformer.h[1].register_forward_hook(
        lambda _, __, out: (
            (out[0] + one.step, *out[1:]) if isinstance(out, tuple) else out + one.step
        )
    )
    with torch.no_grad():
        expected = hooked.hf(ids).logits[0]
    handle.remove()
    found = view.capture("Rome is", "logits")[LOGITS]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_prompts_of_any_length_are_continued_as_each_alone() -> None:
    hooked = model("llama")
    alone = [hooked.generate(text, 5)[0] for text in TEXTS]
    assert hooked.generate(TEXTS, 5) == alone
    for given, message in (
        ((TEXTS, 0), "tokens is 0"),
        ((["a" * 60], 9), "9 tokens behind a prompt of 61: .* takes 64 in all"),
    ):
        with pytest.raises(wb.WorkbenchError, match=message):
            hooked.generate(*given)
    with pytest.raises(wb.UnsupportedError, match="expected a decoder"):
        model("bert").generate("a", 2)


def test_results_say_how_the_model_was_steered() -> None:
    hooked = model("gpt2")
    view = hooked.with_steering([steer(hooked, "mlp_act", -2.0)])
    made = json.loads(LogitLens(top_k=1)(view, "Rome").data.attrs["provenance"])["model"]
    assert called(made).endswith("steered by -2 at mlp_act of layer 2")
    assert made["weights"] != hooked.provenance()["weights"]
    other = hooked.with_steering([steer(hooked, "mlp_act", -2.5)]).provenance()
    assert other["weights"] != made["weights"]


def test_what_cannot_be_steered() -> None:
    hooked, vector = model("gpt2"), torch.ones(16)
    for site in (("resid_post", 0), ("resid_pre", 2), ("resid_mid", 1), ("attn_out", 1), ("q", 1)):
        with pytest.raises(wb.UnsupportedError, match="cannot be steered in every pass"):
            hooked.with_steering([wb.Steer(site, vector)])
    with pytest.raises(wb.SettingError, match="no layer 9"):
        hooked.with_steering([wb.Steer(("resid_post", 9), vector)])
    with pytest.raises(wb.UnsupportedError, match="mixtral has no mlp_act"):
        model("mixtral").with_steering([wb.Steer(("mlp_act", 1), vector)])
    with pytest.raises(wb.SettingError, match=r"shape \(3,\) to steer .*: expected \(16,\)"):
        hooked.with_steering([wb.Steer(("resid_post", 1), torch.ones(3))]).capture("a", "logits")
    other = wb.load(hf_model("gpt2"), tokenizer(), engine="nnsight")
    with pytest.raises(wb.UnsupportedError, match="nnsight engine has no steering"):
        other.with_steering([wb.Steer(("resid_post", 1), vector)])
    one = steer(hooked, "resid_post")
    found = other.intervene("Rome", [one.edit("last")])[LOGITS]
    torch.testing.assert_close(found, hooked.intervene("Rome", [one.edit("last")])[LOGITS])


@pytest.mark.parametrize("site", ["resid_post", "mlp_out"])
def test_every_instrument_sees_the_model_that_has_the_vector_in_its_bias(site: str) -> None:
    """GPT-2's MLP ends with a bias: to add to it is to add at mlp_out, and so to the state behind it."""
    hooked = model("gpt2")
    one = steer(hooked, site)
    plain = hf_model("gpt2")
    with torch.no_grad():
        plain.transformer.h[1].mlp.c_proj.bias += one.step
    baked, view = wb.load(plain, tokenizer()), hooked.with_steering([one])
    prompt = wb.Prompt("Rome is", target="a", foil="b", subject="Rome", corrupted="Roma is")
    instruments = [
        LogitLens(top_k=2),
        BackwardLens(top_k=2),
        CausalTrace(samples=2),
        Patch(),
        Ablate(what="blocks"),
        AttributionPatch(),
        InputAttribution(),
    ]
    for instrument in instruments:
        found, expected = (instrument(each, prompt).data for each in (view, baked))
        for name, values in expected.data_vars.items():
            if values.dtype.kind == "f":
                # 1e-8: the same passes in float64, some of them differenced
                np.testing.assert_allclose(
                    found[name], values, rtol=1e-8, atol=1e-8, err_msg=f"{instrument.name} {name}"
                )

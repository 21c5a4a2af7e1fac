"""The ways to the transformer-lens engine, what they leave alone, and what they refuse."""

import logging
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformer_lens.model_bridge import TransformerBridge

import workbench as wb
from tests.models.bridges import UNWRAPPED, assert_equal, bridge
from tests.models.test_engine import snapshot
from tests.models.test_gradients import loss
from tests.tiny import CONFIGS, TEXTS, hf_model, model, tokenizer, tokenizer_of
from workbench.models.bridge.engine import BridgeModel
from workbench.models.bridge.twins import bridged, contained_import, unbridged

LENS = "transformer_lens"
OF_EACH_KIND = ["gpt2", "llama", "gemma2", "falcon", "opt", "bloom", "granite", "gpt_oss", "bert"]


def held(family: str) -> Any:
    """A TransformerBridge such as a notebook holds."""
    return bridged(hf_model(family), family)


def logits(hf: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = hf(torch.arange(1, 9)[None]).logits
    return found


@pytest.mark.parametrize("family", OF_EACH_KIND)
def test_the_callers_model_stays_as_it_was(family: str) -> None:
    hf = hf_model(family)

    def whole() -> list[object]:
        tensors = [(name, t.data_ptr(), t._version) for name, t in hf.state_dict().items()]
        kinds = [
            (type(m), m.config._attn_implementation) for m in hf.modules() if hasattr(m, "config")
        ]
        return [tensors, [type(m) for m in hf.modules()], kinds, snapshot(hf)]

    before, said = whole(), logits(hf)
    hooked = wb.load(hf, tokenizer_of(family), engine=LENS)
    hooked.capture(TEXTS, ["resid_post", "v"])
    hooked.grad(TEXTS, loss, ["resid_post"])
    assert whole() == before
    assert torch.equal(logits(hf), said)
    shared = {t.data_ptr() for t in hooked.network.parameters()}
    assert {t.data_ptr() for t in hf.parameters()} <= shared


@pytest.mark.parametrize("family", OF_EACH_KIND)
def test_a_bridge_gives_the_numbers_and_the_fingerprint_of_its_model(family: str) -> None:
    hooked = wb.load(held(family), tokenizer_of(family))
    assert isinstance(hooked, BridgeModel)
    assert_equal(family, *(m.capture(TEXTS, ["resid_post", "v"]) for m in (hooked, bridge(family))))
    mine, theirs = (m.provenance() for m in (hooked, model(family)))
    assert mine["weights"] == theirs["weights"] == bridge(family).provenance()["weights"]
    assert (mine["engine"], mine["name"]) == (LENS, family)
    assert mine["transformer_lens"].startswith("4.3.")


def test_a_bridge_keeps_the_hooks_of_its_owner() -> None:
    theirs, seen = held("gpt2"), []
    theirs.add_hook("blocks.1.hook_resid_post", lambda value, hook: seen.append(value.shape))
    logits(theirs.original_model)  # a bridge puts hooks of its own on itself in its first pass
    hooks, before = theirs.list_hooks(), snapshot(theirs.original_model)
    hooked = wb.load(theirs, tokenizer())
    seen.clear()
    hooked.capture("abc", ["resid_post"])
    assert seen == [(1, 3, 16)]
    hooked.grad("abc", loss, ["resid_post"])
    with pytest.raises(ZeroDivisionError):
        hooked.grad("abc", lambda *_: 1 / 0, ["attn_out"])
    with pytest.raises(ZeroDivisionError):
        hooked.intervene("abc", [wb.Edit(("attn_out", 2), lambda *_: 1 / 0)])
    assert theirs.list_hooks() == hooks
    assert snapshot(theirs.original_model) == before


def test_a_bridge_whose_hooks_change_the_model_is_refused() -> None:
    theirs = held("gpt2")
    theirs.add_hook("blocks.1.hook_resid_post", lambda value, hook: value + 1)
    with pytest.raises(wb.UnsupportedError, match="load the bridge before hooks hang on it"):
        wb.load(theirs, tokenizer())


def test_a_bridge_with_rewritten_weights_is_refused_or_says_so() -> None:
    split, whole = held("gpt2"), held("llama")
    for theirs in (split, whole):
        theirs.enable_compatibility_mode()
    with pytest.raises(wb.UnsupportedError, match="a bridge without compatibility mode"):
        wb.load(split, tokenizer())
    hooked = wb.load(whole, tokenizer_of("llama"))
    assert hooked.provenance()["weights"] != model("llama").provenance()["weights"]


@pytest.mark.parametrize("family", OF_EACH_KIND)
def test_unbridged_is_the_plain_model(family: str) -> None:
    hf = hf_model(family)
    plain = unbridged(bridged(hf, family).original_model)
    assert list(plain.state_dict()) == list(hf.state_dict())
    assert not any(type(m).__module__.startswith(LENS) for m in plain.modules())
    torch.testing.assert_close(logits(plain), logits(hf), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", UNWRAPPED)
def test_what_transformer_lens_cannot_do_is_refused_by_name(family: str) -> None:
    with pytest.raises(wb.UnsupportedError, match=UNWRAPPED[family]) as refusal:
        bridge(family)
    assert "\n" not in str(refusal.value)


def test_phi_is_taken_where_its_queries_have_no_norm() -> None:
    name, settings = CONFIGS["phi"]
    config = getattr(transformers, name)(**settings | {"qk_layernorm": False})
    hf = transformers.AutoModelForCausalLM.from_config(config).double().eval()
    plain, hooked = (wb.load(hf, tokenizer(), engine=engine) for engine in ("torch", LENS))
    sites = ["resid_post", "attn_out", "q", "k", "v", "pattern", "z", "logits"]
    assert_equal("phi", *(m.capture(m.batch(TEXTS, "left"), sites) for m in (hooked, plain)))


def test_a_bridge_over_a_model_of_its_own_is_refused() -> None:
    settings = {
        "d_model": 8,
        "d_head": 4,
        "n_layers": 1,
        "n_ctx": 8,
        "d_vocab": 9,
        "act_fn": "gelu",
    }
    native = TransformerBridge.boot_native(settings | {"n_heads": 2})
    with pytest.raises(wb.ModelError, match="over NativeModel: expected one over a Hugging Face"):
        wb.load(native.eval(), tokenizer())


def test_changed_weights_are_not_passed_off_as_those_of_the_bridge() -> None:
    hf = hf_model("gpt2")
    hooked = wb.load(hf, tokenizer(), engine=LENS)
    hooked.provenance()
    with torch.no_grad():
        hf.transformer.h[0].attn.c_attn.weight.add_(1)
    with pytest.raises(wb.ModelError, match="weights have changed since it was loaded"):
        hooked.provenance()


# PEFT asks transformers for it under its old name
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_are_refused() -> None:
    tuned = get_peft_model(hf_model("llama"), LoraConfig(target_modules=["q_proj"])).eval()
    with pytest.raises(wb.UnsupportedError, match="transformer_lens engine takes no adapter"):
        wb.load(tuned, tokenizer(), engine=LENS)


def test_the_engine_is_that_of_the_model_given(tmp_path: Path) -> None:
    assert wb.load(held("llama"), tokenizer()).engine == LENS
    with pytest.raises(
        wb.UnsupportedError, match="TransformerBridge runs on engine 'transformer_lens'"
    ):
        wb.load(held("llama"), tokenizer(), engine="torch")
    with pytest.raises(wb.UnsupportedError, match="engine 'jax' is not supported: expected one of"):
        wb.load(hf_model("llama"), tokenizer(), engine="jax")
    with pytest.raises(wb.ModelError, match="without a tokenizer needs one"):
        wb.load(held("llama"))
    hf_model("llama", torch.float32).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    loaded = wb.load(tmp_path, engine=LENS)
    assert (loaded.engine, loaded.name) == (LENS, tmp_path.name)
    assert_equal("llama", *(m.capture("abc", ["resid_post"]) for m in (loaded, wb.load(tmp_path))))


def test_what_its_import_silences_speaks_again() -> None:
    log = logging.getLogger("transformers")
    level, filters = log.level, list(warnings.filters)
    with contained_import():
        log.setLevel(logging.CRITICAL)
        warnings.simplefilter("ignore")
    assert (log.level, warnings.filters) == (level, filters)


def test_two_threads_give_no_wrong_tensor() -> None:
    """Two threads on a bare TransformerBridge do, without an exception."""
    hooked = bridge("gpt2")
    zero = wb.Edit.set(("mlp_out", 1), torch.zeros(16))
    sites = [("resid_post", 1), "logits"]
    passes = {
        "clean": lambda: hooked.capture("abcd", sites),
        "edited": lambda: hooked.intervene("abcd", [zero], sites),
    }
    expected = {name: run().values for name, run in passes.items()}
    wrong: list[str] = []

    def work(name: str) -> None:
        for _ in range(500):
            found = passes[name]().values
            wrong.extend(
                name for site, v in expected[name].items() if not torch.equal(found[site], v)
            )

    threads = [threading.Thread(target=work, args=(name,)) for name in passes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(expected["clean"]) == len(sites)

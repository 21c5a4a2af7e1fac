"""Loading: names, folders, models in memory, and every way in which it can fail."""

from pathlib import Path

import pytest
import torch
import transformers

import workbench as wb
from tests.tiny import CONFIGS, EVERY, hf_model, tokenizer, tokenizer_of
from workbench.models.checks import check
from workbench.models.families import FAMILIES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hf_model("llama", torch.float32).save_pretrained(tmp_path)
    tokenizer(bos=True).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that cannot be reached, without waiting for it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_folder(folder: Path) -> None:
    loaded = wb.load(folder)
    assert loaded.name == folder.name
    assert (loaded.n_layers, loaded.d_model, loaded.vocab_size, loaded.context) == (3, 16, 257, 64)
    assert loaded.dtype == torch.float32
    assert wb.load(str(folder), dtype=torch.float64).dtype == torch.float64
    assert "llama, 3 blocks" in repr(loaded)


def test_the_bundled_models() -> None:
    for name in (None, "atlas", "atlas-bag"):
        loaded = wb.load(name)
        assert loaded.name == name or name is None
        assert loaded.dtype == torch.float32
        assert not loaded.refused


def test_a_model_in_memory_is_used_as_it_is() -> None:
    hf = hf_model("qwen2")
    loaded = wb.load(hf, tokenizer())
    assert loaded.hf is hf
    assert loaded.provenance()["family"] == "qwen2"


@pytest.mark.parametrize("family", EVERY)
def test_every_family_passes_its_checks(family: str) -> None:
    loaded = wb.load(hf_model(family), tokenizer_of(family))
    assert all(result.holds for result in check(loaded))


@pytest.mark.parametrize(
    ("family", "setting", "value"),
    [
        ("opt", "do_layer_norm_before", False),
        ("bloom", "apply_residual_connection_post_layernorm", True),
        ("bloom", "slow_but_exact", True),
        ("gemma", "use_bidirectional_attention", True),
        ("bert", "is_decoder", True),
    ],
)
def test_a_variant_with_other_sites_is_refused(family: str, setting: str, value: bool) -> None:
    hf = hf_model(family)
    setattr(hf.config, setting, value)
    with pytest.raises(
        wb.UnsupportedError, match=f"{family} with {setting}={value} is not supported: expected"
    ):
        wb.load(hf, tokenizer())


def test_the_weights_hash_follows_the_weights() -> None:
    hf = hf_model("gpt2")
    loaded = wb.load(hf, tokenizer())
    first = loaded.provenance()["weights"]
    assert first == wb.load(hf_model("gpt2"), tokenizer()).provenance()["weights"]
    with torch.no_grad():
        hf.transformer.h[0].mlp.c_fc.weight[0, 0] += 1
    second = loaded.provenance()["weights"]
    hf.transformer.wte.weight.data.add_(1.0)  # leaves no version
    assert len({first, second, loaded.provenance()["weights"]}) == 3


def test_an_unknown_name_offline() -> None:
    with pytest.raises(
        wb.ModelError, match="'no/such-model' is no folder here.*local folder"
    ) as caught:
        wb.load("no/such-model")
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(wb.ModelError, match="no folder"):
        wb.load(tmp_path / "none")


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(wb.ModelError, match="has no weights: expected model.safetensors"):
        wb.load(folder)


def test_a_folder_without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(wb.ModelError, match="has no tokenizer"):
        wb.load(folder)


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(wb.ModelError, match="has no config.json"):
        wb.load(tmp_path)


def test_pickle_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(wb.ModelError, match="pickle weights only .*refused.*save_pretrained"):
        wb.load(folder)


def test_truncated_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(wb.ModelError, match="its weights cannot be read") as caught:
        wb.load(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fill_the_model(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        wb.ModelError, match=r"1 missing weights \(model.layers.1.mlp.up_proj.weight"
    ):
        wb.load(folder)


def test_an_unsupported_family_is_named(tmp_path: Path) -> None:
    config = transformers.MambaConfig(vocab_size=257, hidden_size=16, num_hidden_layers=1)
    hf = transformers.MambaForCausalLM(config)
    with pytest.raises(wb.UnsupportedError, match="family 'mamba' is not supported"):
        wb.load(hf.eval(), tokenizer())
    hf.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(wb.UnsupportedError, match="family 'mamba' is not supported"):
        wb.load(tmp_path)


def test_bad_calls() -> None:
    hf = hf_model("gpt2")
    with pytest.raises(wb.ModelError, match="needs its tokenizer"):
        wb.load(hf)
    with pytest.raises(wb.ModelError, match="keeps its dtype"):
        wb.load(hf, tokenizer(), dtype=torch.float32)
    with pytest.raises(wb.ModelError, match=r"training mode.*model\.eval"):
        wb.load(hf.train(), tokenizer())
    with pytest.raises(wb.ModelError, match="int is no Hugging Face model"):
        wb.load(3)
    with pytest.raises(wb.ModelError, match="device 'tpu9' cannot be used here"):
        wb.load(device="tpu9")
    with pytest.raises(wb.UnsupportedError, match="engine 'jax' is not supported"):
        wb.load(engine="jax")


@pytest.mark.parametrize("engine", ["torch", "nnsight"])
@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_head_without_a_vocabulary_is_refused(family: str, head: str, engine: str) -> None:
    auto = getattr(transformers, f"AutoModelFor{head}")
    hf = auto.from_config(hf_model(family).config).eval()
    with pytest.raises(
        wb.ModelError, match=f"For{head} has no logits over its vocabulary: expected a language"
    ) as caught:
        wb.load(hf, tokenizer(), engine=engine)
    assert "\n" not in str(caught.value)


def test_what_is_no_tokenizer_is_refused() -> None:
    for given in ("gpt2", tokenizer().backend_tokenizer):
        for model in (hf_model("gpt2"), "atlas"):
            with pytest.raises(
                wb.ModelError, match=f"tokenizer is a {type(given).__name__}: expected a Hugging"
            ):
                wb.load(model, given)


def test_a_site_that_means_something_else_is_refused() -> None:
    """A block that adds something of its own: mlp_out is no longer the whole of it."""
    hf = hf_model("llama")
    block = hf.model.layers[1]
    block.register_forward_hook(lambda module, args, out: out + 0.5)
    loaded = wb.load(hf, tokenizer())
    with pytest.raises(
        wb.ModelError, match=r"mlp_out is refused: resid_mid \+ mlp_out = resid_post fails by 0.5"
    ):
        loaded.capture("abc", ["mlp_out"])
    loaded.capture("abc", ["resid_post", "attn_out"])


def test_a_model_that_cannot_run_in_its_dtype_is_refused() -> None:
    hf = hf_model("mixtral")
    hf.set_experts_implementation("grouped_mm")  # a kernel without float64
    with pytest.raises(
        wb.ModelError,
        match=r"cannot run a few tokens in torch.float64: .*; load it in another dtype",
    ) as caught:
        wb.load(hf, tokenizer())
    assert "\n" not in str(caught.value)


def test_every_family_of_the_table_is_tested() -> None:
    kinds = {
        config().model_type for config in (getattr(transformers, c) for c, _ in CONFIGS.values())
    }
    assert kinds == set(FAMILIES)
    assert sum(family.kind == "decoder" for family in FAMILIES.values()) >= 24


def test_a_model_whose_last_step_is_not_its_own_is_refused() -> None:
    """A head that sees more than the final norm's output cannot be read layer by layer."""
    hf = hf_model("llama")
    calls = []
    hf.lm_head.register_forward_hook(lambda module, args, out: calls.append(1) or out + len(calls))
    with pytest.raises(wb.ModelError, match="lens of the last block = the model's logits fails by"):
        wb.load(hf, tokenizer())


def test_blocks_can_be_spread_over_devices() -> None:
    text = "The Eiffel Tower is located in the city of"
    whole = wb.load().capture(text, "resid_post").stack("resid_post")
    for spread in ("auto", {"transformer": "cpu", "lm_head": "cpu"}):
        assert wb.load(device=spread).capture(text, "resid_post").stack("resid_post").equal(whole)


def test_weights_that_no_device_holds_and_devices_that_are_not_here_are_refused() -> None:
    outside = dict.fromkeys(["transformer.wte", "transformer.wpe", "transformer.ln_f"], "cpu")
    with pytest.raises(wb.ModelError, match="do not fit the devices and would be moved in"):
        wb.load(device=outside | {"transformer.h": "disk", "lm_head": "cpu"})
    with pytest.raises(wb.ModelError, match="device 'cuda:77' cannot be used here"):
        wb.load(device={"": "cuda:77"})

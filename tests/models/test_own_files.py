"""A researcher's own files: shards, 16-bit weights, tokenizers of every make."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import workbench as wb
from tests.tiny import GATED, LAYERS, TEXTS, hf_model, tokenizer

SITES = ["resid_post", "attn_out", "mlp_out", "logits"]


def test_shards_are_one_model(tmp_path: Path) -> None:
    hf = hf_model("llama", torch.float32)
    hf.save_pretrained(tmp_path / "sharded", max_shard_size="8KB")
    hf.save_pretrained(tmp_path / "whole")
    for folder in ("sharded", "whole"):
        tokenizer().save_pretrained(tmp_path / folder)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 3
    sharded, whole = wb.load(tmp_path / "sharded"), wb.load(tmp_path / "whole")
    assert sharded.provenance()["weights"] == whole.provenance()["weights"]
    caught, expected = (model.capture(TEXTS, SITES) for model in (sharded, whole))
    assert all(torch.equal(caught[site], value) for site, value in expected.values.items())


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    hf_model("llama", torch.float32).save_pretrained(tmp_path, max_shard_size="8KB")
    tokenizer().save_pretrained(tmp_path)
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(wb.ModelError, match="its weights cannot be read") as caught:
        wb.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_sixteen_bits_stay_sixteen_bits(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    hf_model(family, dtype).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model = wb.load(tmp_path)
    hf = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert model.dtype == dtype
    assert not model.refused
    caught = model.capture(TEXTS[0], SITES)
    assert {value.dtype for value in caught.values.values()} == {dtype}
    ids = torch.tensor([model.encode(wb.Prompt(TEXTS[0])).ids])
    with torch.no_grad():
        own = hf(ids, use_cache=False, output_hidden_states=True)
    assert torch.equal(caught["logits", LAYERS], own.logits[0])
    for layer in range(LAYERS):
        assert torch.equal(caught["resid_post", layer], own.hidden_states[layer][0])
    assert wb.load(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_words_without_any_special_token() -> None:
    """A tokenizer that is nothing but a vocabulary: no padding, no BOS, no name."""
    words = Tokenizer(models.WordLevel({"the": 0, "tower": 1, "of": 2, "<unk>": 3}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    model = wb.load(hf_model("llama"), transformers.PreTrainedTokenizerFast(tokenizer_object=words))
    prompt = wb.Prompt("the tower of the", target="tower", subject="tower of")
    assert model.encode(prompt).ids == (0, 1, 2, 0)
    assert model.encode(prompt).subject == (1, 2)
    batch = model.batch([prompt, "tower"], "left")
    single = model.capture("tower", ["logits"])["logits", LAYERS]
    last = model.capture(batch, ["logits"], "last")["logits", LAYERS][1:]
    torch.testing.assert_close(last, single, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def slow() -> wb.Model:
    """A model whose tokenizer is Python alone, and says nothing of characters."""
    config = transformers.LlamaConfig(**GATED | {"vocab_size": 384})
    torch.manual_seed(0)
    hf = transformers.AutoModelForCausalLM.from_config(config).eval()
    return wb.load(hf, transformers.ByT5Tokenizer())


def test_a_slow_tokenizer_reads_by_index(slow: wb.Model) -> None:
    encoded = slow.encode(wb.Prompt("ab"))
    assert encoded.ids == (100, 101)  # no closing token
    assert slow.capture("abc", ["resid_post"], [-1])["resid_post", 1].shape == (1, 16)


def test_a_slow_tokenizer_places_no_subject(slow: wb.Model) -> None:
    prompt = wb.Prompt("the tower", subject="tower")
    for role in ("subject", "last_subject"):
        with pytest.raises(wb.PromptError, match="it is a slow one.*give positions as indices"):
            slow.capture(prompt, ["resid_post"], role)


def test_a_tokenizer_that_is_given_is_the_one_that_is_used(tmp_path: Path) -> None:
    hf_model("gpt2", torch.float32).save_pretrained(tmp_path)
    mine = tokenizer(bos=True)
    hooked = wb.load(tmp_path, mine)  # the folder holds none
    assert hooked.tokenizer is mine
    tokenizer().save_pretrained(tmp_path)
    plain = wb.load(tmp_path)
    assert (
        wb.load(tmp_path, mine).encode(wb.Prompt("a")).ids[1:] == plain.encode(wb.Prompt("a")).ids
    )
    assert hooked.provenance()["tokenizer"] != plain.provenance()["tokenizer"]


@pytest.mark.parametrize("name", ["bf16", "bfloat16", "torch.bfloat16"])
def test_a_dtype_goes_by_its_names(name: str) -> None:
    assert wb.load(dtype=name).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["banana", "nn", "int8", ""])
def test_a_dtype_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(wb.ModelError, match=f"dtype '{name}' cannot be used: expected float32"):
        wb.load(dtype=name)

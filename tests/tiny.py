"""Tiny random models of every family, with a byte tokenizer: what the oracles run on."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

import workbench as wb

EOT = "<|endoftext|>"
VOCABULARY = 257
LAYERS = 3

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 256,
    "initializer_range": 0.3,
}
GATED = SMALL | {"intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 16,
    "n_layer": LAYERS,
    "n_head": 2,
    "n_positions": 64,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "initializer_range": 0.3,
}
WINDOW = {"sliding_window": 4}
CAPPED = {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 8}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
GEMMA3 = GATED | WINDOW | MIXED | {"query_pre_attn_scalar": 8}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", GPT2),
    "gpt_neox": ("GPTNeoXConfig", SMALL | {"intermediate_size": 24, "rotary_pct": 0.5}),
    "gpt_neox_sequential": (
        "GPTNeoXConfig",
        SMALL | {"intermediate_size": 24, "use_parallel_residual": False},
    ),
    "llama": ("LlamaConfig", GATED),
    "mistral": ("MistralConfig", GATED | WINDOW),
    "qwen2": ("Qwen2Config", GATED),
    "qwen3": ("Qwen3Config", GATED),
    "gemma2": ("Gemma2Config", GATED | WINDOW | CAPPED | MIXED),
    "gemma3_text": ("Gemma3TextConfig", GEMMA3),
    "gemma3": ("Gemma3Config", {"text_config": GEMMA3, "vision_config": VISION}),
}
FAMILIES = list(CONFIGS)
SEQUENTIAL = [family for family in FAMILIES if family != "gpt_neox"]


def having(sites: list[str]) -> list[tuple[str, str]]:
    """(family, site) pairs, without resid_mid where the blocks are parallel."""
    every = [(family, site) for family in FAMILIES for site in sites]
    return [pair for pair in every if pair[1] != "resid_mid" or pair[0] in SEQUENTIAL]


TEXTS = ["The Eiffel Tower", "Rome", "a b c d e f g h", "x"]


@cache
def tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte; with `bos`, a BOS before every text, as Llama's tokenizers do."""
    vocabulary = {char: index for index, char in enumerate(bytes_to_unicode().values())}
    raw = Tokenizer(models.BPE(vocab=vocabulary | {EOT: 256}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{EOT} $A", special_tokens=[(EOT, 256)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=EOT, eos_token=EOT, pad_token=EOT
    )


def hf_model(family: str, dtype: torch.dtype = torch.float64) -> Any:
    """A new random Hugging Face model; equal for equal arguments."""
    name, settings = CONFIGS[family]
    config = getattr(transformers, name)(**settings)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # norms and biases that are not 1 and 0, so that forgetting them shows
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.to(dtype).eval()


@cache
def model(family: str, dtype: torch.dtype = torch.float64) -> wb.TorchModel:
    """The hooked model, shared between tests: a call must leave nothing behind on it."""
    return wb.load(hf_model(family, dtype), tokenizer(bos=family == "llama"))

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
from workbench.models.families import family_of

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

PARTIAL = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
}
# torch's grouped product of experts takes no float64
EXPERTS = GATED | {"num_experts_per_tok": 2, "experts_implementation": "eager"}
PLAIN_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
FALCON = SMALL | {"num_attention_heads": 4, "new_decoder_architecture": False}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", GPT2),
    "gpt_neo": (
        "GPTNeoConfig",
        SMALL | {"attention_types": [[["global", "local", "global"], 1]], "window_size": 4},
    ),
    "gptj": ("GPTJConfig", GPT2 | {"rotary_dim": 4}),
    "gpt_neox": ("GPTNeoXConfig", SMALL | {"intermediate_size": 24, "rotary_pct": 0.5}),
    "gpt_neox_sequential": (
        "GPTNeoXConfig",
        SMALL | {"intermediate_size": 24, "use_parallel_residual": False},
    ),
    "opt": ("OPTConfig", SMALL | {"ffn_dim": 24, "word_embed_proj_dim": 16, "init_std": 0.3}),
    "opt_projected": (
        "OPTConfig",
        SMALL | {"ffn_dim": 24, "word_embed_proj_dim": 8, "init_std": 0.3},
    ),
    "bloom": ("BloomConfig", SMALL),
    "falcon": ("FalconConfig", FALCON),
    "falcon_new": ("FalconConfig", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_alibi": (
        "FalconConfig",
        FALCON | {"alibi": True, "parallel_attn": False, "multi_query": False, "bias": True},
    ),
    "llama": ("LlamaConfig", GATED),
    "mistral": ("MistralConfig", GATED | WINDOW),
    "qwen2": ("Qwen2Config", GATED),
    "qwen3": ("Qwen3Config", GATED),
    "gemma": ("GemmaConfig", GATED),
    "gemma2": ("Gemma2Config", GATED | WINDOW | CAPPED | MIXED),
    "gemma3_text": ("Gemma3TextConfig", GEMMA3),
    "gemma3": ("Gemma3Config", {"text_config": GEMMA3, "vision_config": VISION}),
    "phi": ("PhiConfig", GATED | PARTIAL | {"qk_layernorm": True}),
    "phi3": ("Phi3Config", GATED | WINDOW | PARTIAL),
    "stablelm": ("StableLmConfig", GATED | PARTIAL | {"qk_layernorm": True}),
    "stablelm_parallel": ("StableLmConfig", GATED | PARTIAL | {"use_parallel_residual": True}),
    "olmo2": ("Olmo2Config", GATED),
    "cohere": ("CohereConfig", GATED | {"use_qk_norm": True}),
    "granite": (
        "GraniteConfig",
        GATED
        | {"residual_multiplier": 0.3, "embedding_multiplier": 3.0, "logits_scaling": 2.0}
        | {"attention_multiplier": 0.2},
    ),
    "mixtral": ("MixtralConfig", EXPERTS | WINDOW | {"num_local_experts": 4}),
    "olmoe": ("OlmoeConfig", EXPERTS | {"num_experts": 4}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        EXPERTS | {"num_experts": 4, "moe_intermediate_size": 12, "norm_topk_prob": True},
    ),
    "gpt_oss": ("GptOssConfig", EXPERTS | WINDOW | MIXED | PLAIN_ROPE | {"num_local_experts": 4}),
}
FAMILIES = list(CONFIGS)
"""The decoder families."""

CONFIGS["bert"] = (
    "BertConfig",
    SMALL | {"vocab_size": 260, "intermediate_size": 24, "pad_token_id": 259},
)
EVERY = list(CONFIGS)
"""Those and the encoder."""

T5 = {
    "vocab_size": 260,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": LAYERS,
    "num_heads": 2,
    "pad_token_id": 259,
    "eos_token_id": 257,
    "decoder_start_token_id": 259,
    "initializer_factor": 3.0,
}
CONFIGS["t5"] = ("T5Config", T5)
CONFIGS["t5_gated"] = ("T5Config", T5 | {"feed_forward_proj": "gated-gelu"})

PARALLEL = ("gptj", "gpt_neox", "falcon", "falcon_new", "phi", "stablelm_parallel", "cohere")
ROUTED = ("mixtral", "olmoe", "qwen3_moe", "gpt_oss")
OWN_CODE = ("gpt_neo", "gptj", "bloom", "falcon", "falcon_new", "falcon_alibi")
SEQUENTIAL = [family for family in FAMILIES if family not in PARALLEL]
DENSE = [family for family in FAMILIES if family not in ROUTED]


LACKS: dict[str, tuple[str, ...]] = {
    "resid_mid": (*PARALLEL, "bert"),
    "mlp_act": ROUTED,
    "attn_out": ("bert",),
    "mlp_out": ("bert",),
    "final_norm": ("bert",),
} | dict.fromkeys(("q", "k", "v", "pattern"), OWN_CODE)


def has(family: str, site: str) -> bool:
    """Whether `family` has `site`."""
    return family not in LACKS.get(site, ())


def having(sites: list[str]) -> list[tuple[str, str]]:
    """(family, site) pairs, where the family has the site."""
    return [(family, site) for family in EVERY for site in sites if has(family, site)]


TEXTS = ["The Eiffel Tower", "Rome", "a b c d e f g h", "x"]


@cache
def tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte; with `bos`, a BOS before every text, as Llama's tokenizers do."""
    raw = _bytes_tokenizer({EOT: 256})
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{EOT} $A", special_tokens=[(EOT, 256)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=EOT, eos_token=EOT, pad_token=EOT
    )


@cache
def encoder_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, between [CLS] and [SEP], with a [MASK], as BERT's tokenizers do."""
    raw = _bytes_tokenizer({"[CLS]": 256, "[SEP]": 257, "[MASK]": 258, "[PAD]": 259})
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 256), ("[SEP]", 257)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        pad_token="[PAD]",
    )


def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    """The tokenizer of the family's tiny model."""
    return (
        encoder_tokenizer()
        if family in ("bert", "t5", "t5_gated")
        else tokenizer(bos=family == "llama")
    )


def _bytes_tokenizer(special: dict[str, int]) -> Tokenizer:
    vocabulary = {char: index for index, char in enumerate(bytes_to_unicode().values())}
    raw = Tokenizer(models.BPE(vocab=vocabulary | special, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def hf_model(family: str, dtype: torch.dtype = torch.float64) -> Any:
    """A new random Hugging Face model; equal for equal arguments."""
    name, settings = CONFIGS[family]
    config = getattr(transformers, name)(**settings)
    torch.manual_seed(0)
    model = getattr(transformers, family_of(config).auto).from_config(config)
    with torch.no_grad():  # norms and biases that are not 1 and 0, so that forgetting them shows
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.to(dtype).eval()


@cache
def model(family: str, dtype: torch.dtype = torch.float64) -> wb.TorchModel:
    """The hooked model, shared between tests: a call must leave nothing behind on it."""
    return wb.load(hf_model(family, dtype), tokenizer_of(family))

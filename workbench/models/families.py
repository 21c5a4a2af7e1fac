"""What each model family calls its parts: the one table that knows Hugging Face module names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workbench.errors import UnsupportedError
from workbench.models.family import Family

__all__ = ["FAMILIES", "T5_ENCODER", "family_of"]


def _attention(path: str, q: str, k: str, v: str, o: str) -> dict[str, str]:
    """Attention's four maps, in modules inside the one at `path`."""
    return {name: f"{path}.{own}" for name, own in zip("qkvo", (q, k, v, o), strict=True)}


def _fused_attention(path: str, qkv: str, o: str) -> dict[str, str]:
    return _attention(path, qkv, qkv, qkv, o)


LLAMA_ATTENTION = _attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj")

GPT2 = Family(
    blocks="transformer.h",
    final_norm="transformer.ln_f",
    attention="attn",
    mlp="mlp",
    attn_out="attn",
    mlp_out="mlp",
    resid_mid="ln_2",
    mlp_act="mlp.c_proj",
    attn_z="attn.c_proj",
    maps={"ff1": "mlp.c_fc", "ff2": "mlp.c_proj"} | _fused_attention("attn", "c_attn", "c_proj"),
    fused={"attn.c_attn": "side_by_side"},
    attn_norm="ln_1",
)
GPT_NEO = replace(
    GPT2,
    attn_z="attn.attention.out_proj",
    maps={**GPT2.maps} | _attention("attn.attention", "q_proj", "k_proj", "v_proj", "out_proj"),
    fused={},
    block_outputs=2,
)
GPT_J = replace(
    GPT2,
    resid_mid="",
    mlp_act="mlp.fc_out",
    attn_z="attn.out_proj",
    maps={"ff1": "mlp.fc_in", "ff2": "mlp.fc_out"}
    | _attention("attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    fused={},
    parallel=True,
    block_outputs=2,
    mlp_norm="ln_1",
)
GPT_NEOX = Family(
    blocks="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    attention="attention",
    mlp="mlp",
    attn_out="attention",
    mlp_out="mlp",
    resid_mid="post_attention_layernorm",
    mlp_act="mlp.dense_4h_to_h",
    attn_z="attention.dense",
    maps={"ff1": "mlp.dense_h_to_4h", "ff2": "mlp.dense_4h_to_h"}
    | _fused_attention("attention", "query_key_value", "dense"),
    fused={"attention.query_key_value": "by_key_head"},
    parallel="use_parallel_residual",
    attn_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
)
FALCON = replace(
    GPT_NEOX,
    blocks="transformer.h",
    final_norm="transformer.ln_f",
    attention="self_attention",
    attn_out="self_attention",
    attn_z="self_attention.dense",
    maps={**GPT_NEOX.maps} | _fused_attention("self_attention", "query_key_value", "dense"),
    fused={"self_attention.query_key_value": "by_key_head"},
    parallel="parallel_attn",
    block_outputs=2,
    mlp_norm="input_layernorm",
)
NEW_FALCON = replace(FALCON, attn_norm="ln_attn", mlp_norm="ln_mlp")
BLOOM = replace(
    FALCON,
    attn_out="self_attention.dense",
    mlp_out="mlp.dense_4h_to_h",
    parallel=False,
    adds_residual=True,
    requires={"apply_residual_connection_post_layernorm": False, "slow_but_exact": False},
)
OPT = Family(
    blocks="model.decoder.layers",
    final_norm="model.decoder.final_layer_norm",
    attention="self_attn",
    mlp="",
    attn_out="self_attn",
    mlp_out="fc2",
    resid_mid="final_layer_norm",
    mlp_act="fc2",
    attn_z="self_attn.out_proj",
    maps={"ff1": "fc1", "ff2": "fc2"}
    | _attention("self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    flat_mlp=True,
    head="model.decoder.project_out",
    attn_norm="self_attn_layer_norm",
    requires={"do_layer_norm_before": True},
)
LLAMA = Family(
    blocks="model.layers",
    final_norm="model.norm",
    attention="self_attn",
    mlp="mlp",
    attn_out="self_attn",
    mlp_out="mlp",
    resid_mid="post_attention_layernorm",
    mlp_act="mlp.down_proj",
    attn_z="self_attn.o_proj",
    maps={"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"} | LLAMA_ATTENTION,
    attn_norm="input_layernorm",
)
STABLELM = replace(LLAMA, parallel="use_parallel_residual", mlp_norm="input_layernorm")
COHERE = replace(LLAMA, resid_mid="", parallel=True, mlp_norm="input_layernorm")
GRANITE = replace(LLAMA, multiplier="residual_multiplier")
PHI = replace(
    COHERE,
    final_norm="model.final_layernorm",
    mlp_act="mlp.fc2",
    attn_z="self_attn.dense",
    maps={"ff1": "mlp.fc1", "ff2": "mlp.fc2"}
    | _attention("self_attn", "q_proj", "k_proj", "v_proj", "dense"),
)
PHI3 = replace(
    LLAMA,
    maps={"gate": "mlp.gate_up_proj", "up": "mlp.gate_up_proj", "down": "mlp.down_proj"}
    | _fused_attention("self_attn", "qkv_proj", "o_proj"),
    fused={"self_attn.qkv_proj": "side_by_side", "mlp.gate_up_proj": "gate_up"},
)
OLMO2 = replace(
    LLAMA,
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
    resid_mid="mlp",
    attn_norm="",
)
GEMMA = replace(LLAMA, requires={"use_bidirectional_attention": False})
GEMMA2 = replace(
    GEMMA,
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
    resid_mid="pre_feedforward_layernorm",
    attn_norm="",
)
GEMMA3_WITH_VISION = replace(
    GEMMA2, blocks="model.language_model.layers", final_norm="model.language_model.norm"
)
EXPERTS = replace(
    LLAMA,
    mlp_act="",
    maps=LLAMA_ATTENTION,
    lacks={"mlp_act": "each token goes to experts of its own, with fused weights; use mlp_out"},
)
POST_NORM = (
    "its blocks normalise the sum of the stream and a branch, so no branch adds to the stream; use "
    "resid_post"
)
BERT = Family(
    blocks="bert.encoder.layer",
    final_norm="",
    attention="attention",
    mlp="",
    attn_out="",
    mlp_out="",
    resid_mid="",
    mlp_act="output.dense",
    attn_z="attention.output.dense",
    sum_norm="attention.output.LayerNorm",
    attn_product="attention.self",
    maps={"ff1": "intermediate.dense", "ff2": "output.dense"}
    | _attention("attention", "self.query", "self.key", "self.value", "output.dense"),
    lacks={
        "attn_out": POST_NORM,
        "mlp_out": POST_NORM,
        "resid_mid": POST_NORM,
        "final_norm": "its last norm is inside its head; use resid_post",
    },
    kind="encoder",
    head="cls.predictions.transform",
    requires={"is_decoder": False},
)
T5_ENCODER = Family(
    blocks="block",
    final_norm="final_layer_norm",
    attention="layer.0.SelfAttention",
    mlp="layer.1.DenseReluDense",
    attn_out="layer.0.SelfAttention",
    mlp_out="layer.1.DenseReluDense",
    resid_mid="layer.1",
    mlp_act="layer.1.DenseReluDense.wo",
    attn_z="layer.0.SelfAttention.o",
    lacks={"logits": "it is an encoder without a head; the decoder's sites have no prefix"},
    kind="encoder",
    block_outputs=3,
    attention_outputs=3,
    passes_on=(2, 5),
)
T5_ATTENTION = _attention("layer.0.SelfAttention", "q", "k", "v", "o")
T5 = replace(
    T5_ENCODER,
    blocks="decoder.block",
    final_norm="decoder.final_layer_norm",
    mlp="layer.2.DenseReluDense",
    mlp_out="layer.2.DenseReluDense",
    resid_mid="",
    mlp_act="layer.2.DenseReluDense.wo",
    cross_attention="layer.1.EncDecAttention",
    cross_z="layer.1.EncDecAttention.o",
    maps={"ff1": "layer.2.DenseReluDense.wi", "ff2": "layer.2.DenseReluDense.wo"} | T5_ATTENTION,
    lacks={
        "resid_mid": "its blocks have three branches; use resid_pre, attn_out and cross_attn_out"
    },
    kind="encoder_decoder",
)
GATED_T5 = replace(
    T5,
    maps={
        "gate": "layer.2.DenseReluDense.wi_0",
        "up": "layer.2.DenseReluDense.wi_1",
        "down": "layer.2.DenseReluDense.wo",
    }
    | T5_ATTENTION,
)

FAMILIES: Mapping[str, Family] = {
    "gpt2": GPT2,
    "gpt_neo": GPT_NEO,
    "gptj": GPT_J,
    "gpt_neox": GPT_NEOX,
    "opt": OPT,
    "bloom": BLOOM,
    "falcon": FALCON,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA2,
    "gemma3": GEMMA3_WITH_VISION,
    "phi": PHI,
    "phi3": PHI3,
    "stablelm": STABLELM,
    "olmo2": OLMO2,
    "cohere": COHERE,
    "granite": GRANITE,
    "mixtral": EXPERTS,
    "olmoe": EXPERTS,
    "qwen3_moe": EXPERTS,
    "gpt_oss": replace(EXPERTS, mlp_outputs=2),
    "bert": BERT,
    "t5": T5,
}
"""Families by the `model_type` of their Hugging Face config."""

VARIANTS: Mapping[tuple[str, str], Family] = {
    ("falcon", "new_decoder_architecture"): NEW_FALCON,
    ("t5", "is_gated_act"): GATED_T5,
}
"""What a family is where its config has a flag on, by the `model_type` and the flag."""


def family_of(config: Any) -> Family:
    """The family of a Hugging Face config.

    Raises:
        UnsupportedError: the family is not in the table, or not with these values.
    """
    kind = config.model_type
    if kind not in FAMILIES:
        raise UnsupportedError(
            f"model family {kind!r} is not supported: expected one of {', '.join(FAMILIES)}"
        )
    family, text = FAMILIES[kind], config.get_text_config()
    for (of, flag), variant in VARIANTS.items():
        family = variant if of == kind and getattr(text, flag, False) else family
    for name, expected in family.requires.items():
        found = getattr(text, name, None)
        if bool(found) != expected:
            raise UnsupportedError(
                f"{kind} with {name}={found} is not supported: expected {expected}; its sites would "
                "mean something else"
            )
    return family

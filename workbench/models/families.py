"""What each model family calls its parts: the one table that knows Hugging Face module names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from workbench.errors import UnsupportedError

__all__ = ["FAMILIES", "Family", "family_of"]


@dataclass(frozen=True)
class Family:
    """Module paths of one family, relative to the whole model or to one block.

    Attributes:
        blocks: path of the list of blocks, from the causal LM model.
        final_norm: path of the norm before the unembedding, from the causal LM model.
        attention: path of the attention module, from a block.
        mlp: path of the MLP, from a block.
        attn_out: path of the module whose output attention *adds* to the residual stream (in
            post-norm families the norm after attention, not attention itself).
        mlp_out: the same for the MLP.
        mid_norm: path of the norm whose input is the residual stream between the two branches.
        mlp_act: path of the down projection; its input is the vector of neuron activations.
        maps: the MLP's linear maps, by the name the literature gives them.
        parallel_flag: name of the config flag that makes both branches read the same state
            (no resid_mid then); empty where the family is always sequential.
    """

    blocks: str
    final_norm: str
    attention: str
    mlp: str
    attn_out: str
    mlp_out: str
    mid_norm: str
    mlp_act: str
    maps: Mapping[str, str] = field(default_factory=dict)
    parallel_flag: str = ""


GPT2 = Family(
    blocks="transformer.h",
    final_norm="transformer.ln_f",
    attention="attn",
    mlp="mlp",
    attn_out="attn",
    mlp_out="mlp",
    mid_norm="ln_2",
    mlp_act="mlp.c_proj",
    maps={"ff1": "mlp.c_fc", "ff2": "mlp.c_proj"},
)
GPT_NEOX = Family(
    blocks="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    attention="attention",
    mlp="mlp",
    attn_out="attention",
    mlp_out="mlp",
    mid_norm="post_attention_layernorm",
    mlp_act="mlp.dense_4h_to_h",
    maps={"ff1": "mlp.dense_h_to_4h", "ff2": "mlp.dense_4h_to_h"},
    parallel_flag="use_parallel_residual",
)
LLAMA = Family(
    blocks="model.layers",
    final_norm="model.norm",
    attention="self_attn",
    mlp="mlp",
    attn_out="self_attn",
    mlp_out="mlp",
    mid_norm="post_attention_layernorm",
    mlp_act="mlp.down_proj",
    maps={"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"},
)
GEMMA = replace(
    LLAMA,
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
    mid_norm="pre_feedforward_layernorm",
)
GEMMA3_WITH_VISION = replace(
    GEMMA, blocks="model.language_model.layers", final_norm="model.language_model.norm"
)

FAMILIES: Mapping[str, Family] = {
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "gemma3": GEMMA3_WITH_VISION,
}
"""Families by the `model_type` of their Hugging Face config."""


def family_of(model_type: str) -> Family:
    """The family of a config's `model_type`.

    Raises:
        UnsupportedError: the family is not in the table.
    """
    if model_type not in FAMILIES:
        raise UnsupportedError(
            f"model family {model_type!r} is not supported: expected one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]

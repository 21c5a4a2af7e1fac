"""What has to be known of a model family to find its sites: module paths, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Family", "Kind", "Layout"]

Kind = Literal["decoder", "encoder", "encoder_decoder"]

Layout = Literal["side_by_side", "by_key_head", "gate_up"]
"""How the outputs of several linear maps lie in those of one module: q, k and v after each other;
the same again for each head of keys; gate and up after each other."""

AUTO: Mapping[Kind, str] = {
    "decoder": "AutoModelForCausalLM",
    "encoder": "AutoModelForMaskedLM",
    "encoder_decoder": "AutoModelForSeq2SeqLM",
}


@dataclass(frozen=True)
class Family:
    """Module paths of one family, relative to the whole model or to one block.

    Attributes:
        blocks: path of the list of blocks, from the language model.
        final_norm: path of the norm before the unembedding, from the language model.
        attention: path of the attention module, from a block.
        mlp: path of the MLP, from a block; empty where its maps lie in the block itself.
        attn_out: path of the module whose output attention *adds* to the residual stream (in
            post-norm families the norm after attention, not attention itself).
        mlp_out: the same for the MLP.
        resid_mid: path of the module whose input is the residual stream between the two branches.
        mlp_act: path of the down projection; its input is the vector of neuron activations.
        attn_z: path of attention's output projection; its input is every head's output.
        attn_product: path of the module that multiplies queries and keys; empty where it is
            attention itself.
        maps: linear maps by the name the literature gives them: ff1 and ff2, or up, gate and down,
            of the MLP; q, k, v and o of attention.
        fused: how modules that hold several of these maps lay out their outputs, by the module's
            path (see `workbench.models.fused`).
        cross_attention: path of the module whose output attention to an encoder adds.
        cross_z: path of that attention's output projection.
        sum_norm: path of the norm of the sum of the stream and attention, where there is one.
        parallel: whether both branches read the same state (no resid_mid then), or the name of the
            config flag that says so.
        lacks: sites that the family does not have (their paths are empty), and why.
        kind: "decoder" (causal), "encoder" (every token sees every other), or "encoder_decoder"
            (paths of the decoder, whose blocks attend to an encoder too).
        multiplier: the config's factor on what a branch adds, applied after its module.
        adds_residual: whether attention and MLP take the residual stream as their second argument
            and return the sum.
        flat_mlp: whether the block flattens the batch, [rows * width, d], before its MLP.
        block_outputs, attention_outputs, mlp_outputs: how many values the module returns, the
            states first.
        passes_on: which of its arguments a block returns behind the states, for the next block; the
            first block makes them.
        head: path of what the last step has beside the final norm and the unembedding, where it has.
        attn_norm: path of the norm through which attention reads the residual stream; empty where a
            branch adds to the stream through a norm too.
        mlp_norm: the same for the MLP of a parallel block; of others it is the module at `resid_mid`.
        requires: config values without which the paths mean something else.
    """

    blocks: str
    final_norm: str
    attention: str
    mlp: str
    attn_out: str
    mlp_out: str
    resid_mid: str
    mlp_act: str
    attn_z: str
    maps: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, Layout] = field(default_factory=dict)
    cross_attention: str = ""
    cross_z: str = ""
    sum_norm: str = ""
    parallel: bool | str = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = "decoder"
    multiplier: str = ""
    adds_residual: bool = False
    flat_mlp: bool = False
    block_outputs: int = 1
    attention_outputs: int = 2
    mlp_outputs: int = 1
    passes_on: tuple[int, ...] = ()
    head: str = ""
    requires: Mapping[str, object] = field(default_factory=dict)
    attn_product: str = ""
    attn_norm: str = ""
    mlp_norm: str = ""

    @property
    def auto(self) -> str:
        """The transformers class that loads a model of the family."""
        return AUTO[self.kind]

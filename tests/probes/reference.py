"""The reference's way in plain torch hooks: each cell one whole forward, its first row the clean run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

PATHS = {
    "gpt2": ("transformer.h", "mlp", "attn"),
    "llama": ("model.layers", "mlp", "self_attn"),
    "qwen3": ("model.layers", "mlp", "self_attn"),
    "gemma2": ("model.layers", "post_feedforward_layernorm", "post_attention_layernorm"),
    "gpt_neox": ("gpt_neox.layers", "mlp", "attention"),
}
"""Where the blocks are, and in a block what adds the MLP's and attention's output."""

Change = Callable[[Tensor], Tensor]


def module_of(hf: Any, family: str, site: str, layer: int) -> Any:
    """The module whose output a site is; layers from 1."""
    blocks, mlp, attention = PATHS[family]
    block = hf.get_submodule(blocks)[layer - 1]
    return (
        block
        if site == "resid_post"
        else block.get_submodule(mlp if site == "mlp_out" else attention)
    )


@torch.no_grad()
def run(hf: Any, ids: Tensor, shift: Tensor, changes: Mapping[Any, Sequence[Change]]) -> Tensor:
    """Logits [1 + samples, vocabulary] at the last token; row 0 is clean, the others are noised.

    Args:
        ids: [width].
        shift: [samples, width, d] added to the token embeddings.
        changes: by module, what its output goes through.
    """
    noised = torch.cat([torch.zeros_like(shift[:1]), shift])
    with ExitStack() as stack:
        hook = hf.get_input_embeddings().register_forward_hook(
            lambda module, args, out: out + noised * getattr(module, "embed_scale", 1.0)
        )
        stack.callback(hook.remove)
        for module, those in changes.items():
            stack.callback(module.register_forward_hook(_changing(those)).remove)
        logits: Tensor = hf(ids.expand(len(noised), -1)).logits[:, -1]
    return logits


def _changing(changes: Sequence[Change]) -> Callable[..., Any]:
    def hook(module: Any, args: Any, out: Any) -> Any:
        value = (out[0] if isinstance(out, tuple) else out).clone()
        for change in changes:
            value = change(value)
        return (value, *out[1:]) if isinstance(out, tuple) else value

    return hook


def restored(token: int) -> Change:
    """The clean row's value at a token, in all rows."""

    def change(value: Tensor) -> Tensor:
        value[1:, token] = value[0, token]
        return value

    return change


def frozen(token: int, values: Tensor) -> Change:
    """Given values [samples, d] at a token, in the noised rows."""

    def change(value: Tensor) -> Tensor:
        value[1:, token] = values
        return value

    return change


def outputs(hf: Any, family: str, site: str, ids: Tensor, shift: Tensor) -> list[Tensor]:
    """[samples, width, d] of a site in the corrupted run, by layer."""
    found: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        found.append(value[1:].clone())
        return value

    layers = range(1, hf.config.num_hidden_layers + 1)
    run(hf, ids, shift, {module_of(hf, family, site, layer): [keep] for layer in layers})
    return found

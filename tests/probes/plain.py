"""Sites of three families by plain torch hooks on their own modules: what patching is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor | None]
Place = tuple[str, int]
BLOCKS = {"gpt2": "transformer.h", "llama": "model.layers", "gpt_neox": "gpt_neox.layers"}
ATTENTION = {"gpt2": "attn", "llama": "self_attn", "gpt_neox": "attention"}
OUTPUT = {"gpt2": "attn.c_proj", "llama": "self_attn.o_proj", "gpt_neox": "attention.dense"}
FUSED = {"gpt2": "attn.c_attn", "gpt_neox": "attention.query_key_value"}


@torch.no_grad()
def run(hf: Any, ids: Tensor, changes: Mapping[Place, Change]) -> Tensor:
    """Logits [width, vocabulary] of one text while values [width, (heads,) d] go through `changes`.

    q, k and v are those before rotary, of which the later ones follow.
    """
    with ExitStack() as stack:
        for (name, layer), change in changes.items():
            stack.callback(_hooked(hf, name, layer, change).remove)
        logits: Tensor = hf(ids[None]).logits[0]
    return logits


def values(hf: Any, ids: Tensor, places: list[Place]) -> dict[Place, Tensor]:
    """What a run has at some places."""
    found: dict[Place, Tensor] = {}
    run(hf, ids, {place: keeping(found, place) for place in places})
    return found


def keeping(found: dict[Place, Tensor], place: Place) -> Change:
    """Notes a value and leaves it."""

    def change(value: Tensor) -> None:
        found[place] = value.clone()

    return change


def putting(
    new: Tensor, columns: list[int], head: int | None, of: list[int] | None = None
) -> Change:
    """Another value, at some columns (of its own columns `of`), of one head or of all."""

    def change(value: Tensor) -> Tensor:
        value, own = value.clone(), columns if of is None else of
        if head is None:
            value[columns] = new[own]
        else:
            value[columns, head] = new[own, head]
        return value

    return change


def _hooked(hf: Any, name: str, layer: int, change: Change) -> Any:
    family, heads = hf.config.model_type, hf.config.num_attention_heads
    block = hf.get_submodule(BLOCKS[family])[layer - 1]
    if name == "resid_post":
        return block.register_forward_hook(_on_output(change))
    if name == "mlp_out":
        return block.mlp.register_forward_hook(_on_output(change))
    if name == "attn_out":
        return block.get_submodule(ATTENTION[family]).register_forward_hook(_on_output(change))
    if name == "z":

        def before(module: Any, args: Any) -> Any:
            new = change(args[0][0].unflatten(-1, (heads, -1)))
            return None if new is None else (new.flatten(-2)[None],)

        return block.get_submodule(OUTPUT[family]).register_forward_pre_hook(before)
    if family == "llama":
        own = heads if name == "q" else hf.config.num_key_value_heads
        split = _split(change, lambda out: out.unflatten(-1, (own, -1)))
        return block.get_submodule(f"self_attn.{name}_proj").register_forward_hook(split)
    index = "qkv".index(name)
    if family == "gpt2":
        split = _split(change, lambda out: out.unflatten(-1, (3, heads, -1))[:, index])
    else:
        split = _split(change, lambda out: out.unflatten(-1, (heads, 3, -1))[:, :, index])
    return block.get_submodule(FUSED[family]).register_forward_hook(split)


def _on_output(change: Change) -> Callable[..., Any]:
    def hook(module: Any, args: Any, out: Any) -> Any:
        new = change(out[0][0] if isinstance(out, tuple) else out[0])
        if new is None:
            return None
        return (new[None], *out[1:]) if isinstance(out, tuple) else new[None]

    return hook


def _split(change: Change, part: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """`change` of a view [width, heads, d] of a map's output."""

    def hook(module: Any, args: Any, out: Tensor) -> Tensor:
        out = out.clone()
        view = part(out[0])
        new = change(view)
        if new is not None:
            view.copy_(new)
        return out

    return hook

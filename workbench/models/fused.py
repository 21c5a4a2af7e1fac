"""Several linear maps in one module: which of its outputs belong to which map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.family import Layout

__all__ = ["output_width", "own_outputs"]


def own_outputs(name: str, layout: Layout, config: Any, width: int) -> Tensor:
    """Indices of the outputs of the map `name` in a module of `width` outputs that holds several."""
    if layout == "gate_up":
        return torch.arange(width).view(2, -1)[("gate", "up").index(name)]
    heads, key_heads = int(config.num_attention_heads), _key_heads(config)
    outputs = torch.arange(width).view(heads + 2 * key_heads, -1)
    counts = [heads, key_heads, key_heads]
    if layout == "by_key_head":
        outputs = outputs.view(key_heads, -1, outputs.shape[-1])
        counts = [count // key_heads for count in counts]
    return torch.split(outputs, counts, dim=-2)["qkv".index(name)].flatten()


def _key_heads(config: Any) -> int:
    """How many heads of keys the model has."""
    if config.model_type == "falcon":
        if config.new_decoder_architecture:
            return int(config.num_kv_heads)
        return 1 if config.multi_query else int(config.num_attention_heads)
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def output_width(module: nn.Module) -> int:
    """How many outputs a linear map has, of whatever library's making."""
    for name in ("out_features", "nf"):  # nf: transformers' Conv1D
        if (found := getattr(module, name, None)) is not None:
            return int(found)
    weight: Any = module.weight
    return int(weight.shape[0])

"""One plain forward of a Hugging Face model of any kind, as its documentation calls it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["forward", "stack_outputs"]


def forward(hf: Any, ids: Tensor, **options: Any) -> Any:
    """The model's own output for prompts `ids` [rows, T] of equal length.

    A model of two stacks reads them in its encoder, and its decoder gets the start token alone.
    """
    if hf.config.is_encoder_decoder:
        start = torch.full_like(ids[:, :1], hf.config.decoder_start_token_id)
        options |= {"decoder_input_ids": start}
    return hf(ids, use_cache=False, **options)


def stack_outputs(hf: Any, out: Any, what: str) -> dict[str, Any]:
    """`what` ("hidden_states" or "attentions") of each stack, by the prefix of its sites."""
    if not hf.config.is_encoder_decoder:
        return {"": out[what]}
    return {"": out[f"decoder_{what}"], "encoder.": out[f"encoder_{what}"]}

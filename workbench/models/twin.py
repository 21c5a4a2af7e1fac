"""The twin that was never trained: what a claim about a trained model is to be held against."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

from workbench.errors import UnsupportedError
from workbench.models.quantised import is_quantised

__all__ = ["random_twin"]


def random_twin(hf: Any, seed: int) -> Any:
    """A Hugging Face model of the same configuration, with weights as its family draws them at first.

    The same for equal seeds on every device: the numbers are drawn on the CPU.

    Raises:
        UnsupportedError: quantised weights, or a model whose weights lie elsewhere.
    """
    if any(is_quantised(module) for module in hf.modules() if not list(module.children())):
        raise UnsupportedError("a quantised model has no twin with random weights: turn twin off")
    parameter = next(hf.parameters())
    if parameter.is_meta:
        raise UnsupportedError(
            "a model that runs elsewhere has no twin with random weights: turn twin off"
        )
    config = deepcopy(hf.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = type(hf)._from_config(
            config, dtype=torch.float32, attn_implementation=hf.config._attn_implementation
        )
    return made.to(device=parameter.device, dtype=parameter.dtype).eval()

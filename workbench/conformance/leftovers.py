"""What calls could leave behind on a Hugging Face model, and whether they did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workbench.conformance.plain import forward

__all__ = ["Snapshot"]


class Snapshot:
    """Everything about a model that a hook, a bypass, a switch or a gradient could change.

    Args:
        hf: the model.
        ids: token ids of a short prompt, whose logits are kept to compare with.
    """

    def __init__(self, hf: Any, ids: Sequence[int]) -> None:
        self._hf = hf
        self._ids = torch.tensor([list(ids)], device=hf.get_input_embeddings().weight.device)
        self._facts = _facts(hf)
        self._logits = self._forward()

    def changes(self) -> list[str]:
        """What is not as it was, by name."""
        facts = _facts(self._hf)
        names = sorted(self._facts.keys() | facts.keys())
        changed = [name for name in names if self._facts.get(name) != facts.get(name)]
        same = torch.equal(self._forward(), self._logits)
        return changed if same else [*changed, "logits"]

    @torch.no_grad()
    def _forward(self) -> Tensor:
        logits: Tensor = forward(self._hf, self._ids).logits
        return logits


def _facts(hf: Any) -> dict[str, Any]:
    modules = {f"module {name}": _module_facts(module) for name, module in hf.named_modules()}
    tensors = [*hf.named_parameters(), *hf.named_buffers()]
    return modules | {
        f"tensor {name}": (t.data_ptr(), t.dtype, t.requires_grad, t.grad is None)
        for name, t in tensors
    }


def _module_facts(module: Any) -> tuple[Any, ...]:
    config = getattr(module, "config", None)
    return (
        type(module),
        tuple(module._forward_hooks),
        tuple(module._forward_pre_hooks),
        module.__dict__.get("forward"),
        module.training,
        id(config),
        getattr(config, "_attn_implementation", None),
    )

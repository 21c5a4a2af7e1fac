"""What an optimiser knows, as tensors that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["optimiser_state", "restore_optimiser"]


def optimiser_state(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What an optimiser knows of named parameters, as tensors `name.key`, for a checkpoint."""
    return {
        f"{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimiser.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor], held: Mapping[str, Tensor]
) -> None:
    """Give an optimiser what `optimiser_state` kept of it."""
    for name, parameter in parameters.items():
        for key, tensor in held.items():
            part, dot, of_state = key.partition(".")
            if dot and part == name:
                counts = of_state == "step"  # torch keeps it on the CPU
                optimiser.state[parameter][of_state] = (
                    tensor if counts else tensor.to(parameter.device)
                )

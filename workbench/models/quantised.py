"""Which modules hold packed numbers in the place of weights, and the refusal to read those."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from workbench.errors import UnsupportedError

__all__ = ["is_quantised", "require_plain_weights", "require_tensors"]


def is_quantised(module: nn.Module) -> bool:
    """Whether a linear map's weights are whole numbers or bytes, of whatever library."""
    tensors = (*module.parameters(), *module.buffers())
    return any(not t.is_floating_point() or t.itemsize == 1 for t in tensors)


def require_plain_weights(module: nn.Module, what: str) -> None:
    """Refuse `what`, which speaks of the weights of `module`, where they are quantised.

    Raises:
        UnsupportedError: they are.
    """
    if is_quantised(module):
        raise UnsupportedError(
            f"{what}: the weights of {type(module).__name__} are quantised; load the model in a plain "
            "dtype, or read sites, which are plain numbers"
        )


def require_tensors(model: Any) -> None:
    """Refuse a model whose weights are something else than tensors, as torch's own quantisation's are.

    Raises:
        UnsupportedError: they are.
    """
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UnsupportedError(
                f"{name} of {type(model).__name__} is a {type(value).__name__}: its weights are packed by "
                "torch (quantize_dynamic) and cannot be read or fingerprinted; give the model from before"
            )

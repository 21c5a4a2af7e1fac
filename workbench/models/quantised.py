"""Which modules hold packed numbers in the place of weights, and the refusal to read those."""

from __future__ import annotations

from torch import nn

from workbench.errors import UnsupportedError

__all__ = ["is_quantised", "require_plain_weights"]


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

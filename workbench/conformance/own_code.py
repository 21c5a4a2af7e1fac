"""The oracle's view of attention that is one long function, without a part to stand before.

What multiplies values there (in Bloom and Falcon) is known by what it is: square, a row for each
query and a column for each key, not negative, its rows of sum 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["weighted_means"]

MULTIPLY = ("bmm", "matmul", "__matmul__")
SUM = 0.05  # how far from 1 the rounded weights of bfloat16 add up

Enter = Callable[[nn.Module, str, Tensor], Tensor]


@contextmanager
def weighted_means(enter: Enter, attentions: Sequence[nn.Module]) -> Iterator[None]:
    """Within the context, `enter` sees and gives what enters the mean of values of each module.

    Args:
        enter: (module, "pattern" or "v", [rows, heads, T, ...]) -> what is to enter in its place.
        attentions: the attention modules.
    """
    means = _Means(enter)
    with ExitStack() as stack:
        for module in attentions:
            before = module.register_forward_pre_hook(means.begin, with_kwargs=True)
            stack.callback(before.remove)
            stack.callback(module.register_forward_hook(means.end).remove)
        stack.enter_context(means)
        yield


class _Means(TorchFunctionMode):
    """Knows which attention runs, and looks at every product meanwhile."""

    def __init__(self, enter: Enter) -> None:
        super().__init__()
        self.enter = enter
        self.running: tuple[nn.Module, int, int] | None = None

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before an attention module runs."""
        states = args[0] if args else kwargs["hidden_states"]
        self.running = module, states.shape[0], states.shape[1]

    def end(self, *_: Any) -> None:
        """After it has run."""
        self.running = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.running is not None and func.__name__ in MULTIPLY:
            module, rows, width = self.running
            if _are_weights(args[0], width):
                args = (
                    self._entering(module, "pattern", args[0], rows),
                    self._entering(module, "v", args[1], rows),
                )
        return func(*args, **(kwargs or {}))

    def _entering(self, module: nn.Module, name: str, value: Tensor, rows: int) -> Tensor:
        """`value`, [rows * heads, T, ...] or [rows, heads, T, ...], as it is to enter."""
        by_head = value.reshape(rows, -1, *value.shape[-2:])
        return self.enter(module, name, by_head).reshape(value.shape)


def _are_weights(left: Tensor, width: int) -> bool:
    if left.shape[-2:] != (width, width):
        return False
    sums = left.sum(-1)
    return bool((left >= 0).all()) and bool(((sums - 1).abs() < SUM).all())

"""What every module of a Hugging Face model was given and gave: the oracle's own hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Call", "added_to_input", "added_to_output", "emptied", "first_tensor", "watched"]


@dataclass(eq=False)
class Call:
    """One call of one module, in the order in which calls began.

    Attributes:
        name: its path below the watched model.
        module: the module.
        args, kwargs: what it was called with (the caller's own tensors).
        given: the first tensor of those, a copy.
        gave: its output, or the first tensor of it, a copy.
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    given: Tensor | None
    gave: Tensor | None = None


def first_tensor(value: Any) -> Tensor | None:
    """`value` itself, or the first tensor of a tuple."""
    items = value if isinstance(value, tuple | list) else (value,)
    return next((item for item in items if isinstance(item, Tensor)), None)


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Call]]:
    """The calls of all modules below `model` within the context."""
    calls: list[Call] = []
    with ExitStack() as stack:
        for name, module in model.named_modules():
            _watch(name, module, calls, stack)
        yield calls


def _watch(name: str, module: nn.Module, calls: list[Call], stack: ExitStack) -> None:
    running: list[Call] = []

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = first_tensor((*args, *kwargs.values()))
        running.append(Call(name, module, args, kwargs, _copied(given)))
        calls.append(running[-1])

    def end(_: nn.Module, __: Any, out: Any) -> None:
        running.pop().gave = _copied(first_tensor(out))

    stack.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(end).remove)


def _copied(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().clone()


@contextmanager
def emptied(module: nn.Module) -> Iterator[None]:
    """`module` gives zeros."""
    with _changed_output(module, torch.zeros_like):
        yield


@contextmanager
def added_to_output(module: nn.Module, extra: Tensor) -> Iterator[None]:
    """`extra`, of as many elements, is added to what `module` gives."""
    with _changed_output(module, lambda value: value + extra.reshape(value.shape)):
        yield


@contextmanager
def _changed_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    def hook(_: nn.Module, __: Any, out: Any) -> Any:
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def added_to_input(module: nn.Module, extra: Tensor) -> Iterator[None]:
    """`extra`, of as many elements, is added to the first tensor that `module` is given."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (args[0] + extra.reshape(args[0].shape), *args[1:]), kwargs
        name = next(key for key, value in kwargs.items() if isinstance(value, Tensor))
        return args, kwargs | {name: kwargs[name] + extra.reshape(kwargs[name].shape)}

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()

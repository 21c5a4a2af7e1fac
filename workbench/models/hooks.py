"""The only place that touches a module: hooks and bypasses that undo themselves, always."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Point", "Tap", "attached", "frozen", "replaced_forward"]

Tap = Callable[[Tensor], Tensor | None]
"""Sees a tensor; returns what goes on in its place, or None to leave it."""


@dataclass(frozen=True)
class Point:
    """The first input or the first output of a module."""

    module: nn.Module
    side: Literal["input", "output"]

    def attach(self, tap: Tap, *, first: bool = False) -> RemovableHandle:
        """Register `tap` here; with `first`, before the taps that are here already."""
        if self.side == "output":
            return self.module.register_forward_hook(
                lambda m, a, out: _on_output(tap, out), prepend=first
            )
        return self.module.register_forward_pre_hook(
            lambda m, args, kwargs: _on_input(tap, args, kwargs), with_kwargs=True, prepend=first
        )


def _on_output(tap: Tap, out: Any) -> Any:
    if isinstance(out, tuple):
        new = tap(out[0])
        return None if new is None else (new, *out[1:])
    return tap(out)


def _on_input(tap: Tap, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args:
        new = tap(args[0])
        return None if new is None else ((new, *args[1:]), kwargs)
    new = tap(kwargs["hidden_states"])
    return None if new is None else (args, kwargs | {"hidden_states": new})


@contextmanager
def attached(taps: Iterable[tuple[Point, Tap]]) -> Iterator[None]:
    """Attach taps, in order, for the length of the context."""
    with ExitStack() as stack:
        for point, tap in taps:
            stack.callback(point.attach(tap).remove)
        yield


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Run `forward` in the place of the module's own for the length of the context."""
    own = module.__dict__.get("forward")  # set where another library wraps the instance
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient inside the context; afterwards each does as before."""
    free = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in free:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for parameter in free:
            parameter.requires_grad_(True)

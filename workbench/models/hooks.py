"""The only place that touches a module: hooks and bypasses that undo themselves, always."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import get_ident
from types import MethodType
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = [
    "Attachable",
    "Handle",
    "Point",
    "Side",
    "Tap",
    "attached",
    "frozen",
    "on_input",
    "on_output",
    "replaced_forward",
    "skipped",
]

Tap = Callable[[Tensor], Tensor | None]
"""Sees a tensor; returns what goes on in its place, or None to leave it."""


Side = Literal["input", "output"]


class Attachable(Protocol):
    """A place of the network on which taps can hang."""

    def attach(self, tap: Tap) -> Handle:
        """Register `tap` here, after those that are here already."""


@dataclass(frozen=True)
class Handle:
    """What takes a tap off again."""

    hooks: tuple[RemovableHandle, ...]

    def remove(self) -> None:
        """Take it off."""
        for hook in self.hooks:
            hook.remove()


@dataclass(frozen=True)
class Point:
    """The first input or the first output of a module.

    Attributes:
        scale: the model multiplies the tensor by this right after; taps see and give the product.
        block: the block that has flattened the tensor from [rows, width, d] to [rows * width, d];
            taps see and give it as it was. None where it stays.
    """

    module: nn.Module
    side: Side
    scale: float = 1.0
    block: nn.Module | None = None

    def attach(self, tap: Tap, *, first: bool = False) -> Handle:
        """Register `tap` here; with `first`, before the taps that are here already."""
        shape: list[int] = []
        hook = self._hook(self.adapted(tap, shape), first)
        if self.block is None:
            return Handle((hook,))
        return Handle((hook, Point(self.block, "input")._hook(_noting_shape(shape), first)))

    def adapted(self, tap: Tap, shape: list[int]) -> Tap:
        """`tap` for the tensor as the module has it; `shape` is [rows, width] when it is called."""
        if self.scale != 1.0:
            tap = _scaled(tap, self.scale)
        return tap if self.block is None else _unflattened(tap, shape)

    def _hook(self, tap: Tap, first: bool) -> RemovableHandle:
        if self.side == "output":
            return self.module.register_forward_hook(
                lambda m, a, out: on_output(tap, out), prepend=first
            )
        return self.module.register_forward_pre_hook(
            lambda m, args, kwargs: on_input(tap, args, kwargs), with_kwargs=True, prepend=first
        )


def _scaled(tap: Tap, scale: float) -> Tap:
    def on_product(value: Tensor) -> Tensor | None:
        new = tap(value * scale)
        return None if new is None else new / scale

    return on_product


def _noting_shape(shape: list[int]) -> Tap:
    def note(states: Tensor) -> None:
        shape[:] = states.shape[:2]

    return note


def _unflattened(tap: Tap, shape: list[int]) -> Tap:
    def on_rows(flat: Tensor) -> Tensor | None:
        new = tap(flat.reshape(*shape, -1))
        return None if new is None else new.flatten(0, 1)

    return on_rows


def on_output(tap: Tap, out: Any) -> Any:
    """What a module gives, with the tap's answer first; None where the tap has none."""
    if isinstance(out, tuple):
        new = tap(out[0])
        return None if new is None else (new, *out[1:])
    return tap(out)


def on_input(tap: Tap, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A module's (args, kwargs) with the tap's answer first; None where the tap has none."""
    if args:
        new = tap(args[0])
        return None if new is None else ((new, *args[1:]), kwargs)
    new = tap(kwargs["hidden_states"])
    return None if new is None else (args, kwargs | {"hidden_states": new})


@contextmanager
def attached(taps: Iterable[tuple[Attachable, Tap]]) -> Iterator[None]:
    """Attach taps, in order, for the length of the context."""
    with ExitStack() as stack:
        for point, tap in taps:
            stack.callback(point.attach(_of_this_thread(tap)).remove)
        yield


def _of_this_thread(tap: Tap) -> Tap:
    """`tap`, deaf to whoever runs the same model in another thread meanwhile."""
    owner = get_ident()
    return lambda value: tap(value) if get_ident() == owner else None


@contextmanager
def replaced_forward(
    module: nn.Module, forward: Callable[..., Any], *, skips: bool = False
) -> Iterator[None]:
    """Run `forward` in the place of the module's own for the length of the context.

    Args:
        skips: whether it does nothing of what the module does; `skipped` then says so.
    """
    # In its own dictionary: some libraries' modules pass an attribute on to a module they wrap.
    instance = module.__dict__
    own = instance.get("forward")  # set where another library wraps the instance
    owner, usual = get_ident(), own or MethodType(type(module).forward, module)

    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (forward if get_ident() == owner else usual)(*args, **kwargs)

    chosen.skips = skips  # type: ignore[attr-defined]
    instance["forward"] = chosen
    try:
        yield
    finally:
        if own is None:
            del instance["forward"]
        else:
            instance["forward"] = own


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


def skipped(module: nn.Module) -> bool:
    """Whether the module's own forward is passed over now (see `replaced_forward`)."""
    return bool(getattr(module.__dict__.get("forward"), "skips", False))

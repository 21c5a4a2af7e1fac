"""Gradients at points of the network, with every weight frozen and no weight gradient formed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ModelError, UnsupportedError
from workbench.models.anatomy import Anatomy
from workbench.models.attention import tapped
from workbench.models.batch import Batch, Places
from workbench.models.forward import Start, run
from workbench.models.hooks import Attachable, Tap, frozen
from workbench.models.positions import Positions

__all__ = ["Pullback", "Scalar", "gradients", "keep", "pullback", "slopes"]

Scalar = Callable[[Tensor, Places], Tensor]
"""(logits [N, vocabulary], their places) -> the scalar to differentiate."""

Pullback = Callable[[Tensor], list[Tensor]]
"""Cotangents of a point -> the vector-Jacobian products at other points."""


def gradients(
    hf: Any,
    anatomy: Anatomy,
    batch: Batch,
    scalar: Scalar,
    points: Sequence[Attachable],
    at: Positions,
    start: Start | None = None,
) -> list[Tensor]:
    """Gradients of `scalar` at each point, each [rows, width, ...].

    The first point on each path becomes a leaf, so that the graph begins there.

    Raises:
        ModelError: the scalar is not one finite number that depends on the logits.
        UnsupportedError: compiled or checkpointed modules.
    """
    _require_plain_modules(hf)
    kept: dict[int, Tensor] = {}
    taps = [(point, keep(kept, index)) for index, point in enumerate(points)]
    where = batch.places(at)
    columns = torch.unique(where.column)
    with frozen(hf):
        with tapped(hf, batch, taps):
            logits = run(hf, anatomy, batch, columns=columns, start=start)
        value = scalar(logits[where.row, torch.searchsorted(columns, where.column)], where)
        return slopes(value, kept)


def _require_plain_modules(hf: Any) -> None:
    """Refuse modules that run hooks once at compilation, or twice in the backward pass.

    Raises:
        UnsupportedError: there are some.
    """
    for name, module in hf.named_modules():
        if getattr(module, "_compiled_call_impl", None):
            raise UnsupportedError(
                f"{name or 'the model'} is compiled, so gradients inside it cannot be taken: give the "
                "model from before torch.compile"
            )
    if getattr(hf, "is_activation_checkpointing", False):
        raise UnsupportedError(
            "the model has activation checkpointing on, which runs its blocks anew in the backward pass: "
            "call model.activation_checkpointing_disable()"
        )


@contextmanager
def pullback(
    hf: Any, anatomy: Anatomy, batch: Batch, target: Attachable, points: Sequence[Attachable]
) -> Iterator[Pullback]:
    """One forward pass, from whose `target` any number of cotangents is pulled back to `points`.

    Cotangents have the target's shape [rows, width, d]; the products have each point's. The graph
    lives as long as the context.
    """
    _require_plain_modules(hf)
    kept: dict[int, Tensor] = {}
    reached: list[Tensor] = []
    taps = [(point, keep(kept, index)) for index, point in enumerate(points)]
    with frozen(hf):
        with tapped(hf, batch, [*taps, (target, reached.append)]):
            run(hf, anatomy, batch)
        sources = [kept[index] for index in range(len(points))]

        def pull(cotangent: Tensor) -> list[Tensor]:
            back = cotangent.to(reached[0])
            return list(torch.autograd.grad(reached[0], sources, back, retain_graph=True))

        yield pull


def slopes(value: Tensor, kept: dict[int, Tensor]) -> list[Tensor]:
    """Gradients of `value` at what `keep` noted, by index.

    Raises:
        ModelError: it is not one finite number that depends on the logits.
    """
    _require_differentiable(value)
    return list(torch.autograd.grad(value, [kept[index] for index in range(len(kept))]))


def _require_differentiable(value: Tensor) -> None:
    if value.numel() != 1:
        raise ModelError(f"to differentiate: got shape {tuple(value.shape)}, expected one number")
    if not torch.isfinite(value).all():
        raise ModelError(f"to differentiate: got {value.item()}, expected a finite number")
    if not value.requires_grad:
        raise ModelError(
            "to differentiate: got a number that does not depend on the logits (or the call stands "
            "inside torch.inference_mode)"
        )


def keep(kept: dict[int, Tensor], index: int) -> Tap:
    """Note the value, as a leaf where no gradient runs yet, to differentiate at it."""

    def tap(value: Tensor) -> Tensor:
        kept[index] = value if value.requires_grad else value.detach().requires_grad_()
        return kept[index].clone()  # some blocks (Falcon's) add to a branch's output in place

    return tap

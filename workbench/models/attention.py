"""Inside attention: queries, keys, values and pattern at their product, and the heads after it.

Models compute the product of queries and keys in one fused kernel that shows nothing. A pass that
asks for q, k, v or pattern runs on an attention function of its own, which is the family's plain
("eager") code with taps before and after its softmax; every other pass keeps the fused kernel.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from threading import get_ident
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from workbench.errors import ModelError
from workbench.models.batch import Batch, DecoderBatch, Places
from workbench.models.hooks import Attachable, Handle, Point, Tap, attached
from workbench.models.keys_values import KeyValues

__all__ = [
    "HeadsPoint",
    "InnerPoint",
    "ProductPoint",
    "by_head",
    "has_plain_attention",
    "tapped",
    "within_prompts",
]

IMPLEMENTATION = "workbench_tapped"
PLAIN = "eager_attention_forward"  # how every family's file calls its plain code

_taps: WeakKeyDictionary[nn.Module, OrderedDict[int, tuple[str, Tap]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class HeadsPoint:
    """z: the input of attention's output projection, [rows, width, heads, d_head]."""

    projection: nn.Module
    heads: int

    def attach(self, tap: Tap) -> Handle:
        """Register `tap` here, after those that are here already."""
        return Point(self.projection, "input").attach(by_head(tap, self.heads))


def by_head(tap: Tap, heads: int) -> Tap:
    """`tap` for the heads side by side, [..., heads * d_head]."""

    def on_joined(joined: Tensor) -> Tensor | None:
        new = tap(joined.reshape(*joined.shape[:-1], heads, -1))
        return None if new is None else new.flatten(-2)

    return on_joined


class InnerPoint(ABC):
    """q, k, v or pattern of one attention module, [rows, width, heads, d_head or keys].

    Its taps hang inside `tapped` alone.

    Attributes:
        attention: the module.
        name: the site.
        sees_prefix: whether k and v come with the columns of a prefix before those that are run.
    """

    attention: nn.Module
    name: str
    sees_prefix: ClassVar[bool]

    @abstractmethod
    def attach(self, tap: Tap) -> Handle:
        """Register `tap` here, after those that are here already."""


@dataclass(frozen=True)
class ProductPoint(InnerPoint):
    """An inner point at the product itself, which runs in the model's plain attention alone."""

    attention: nn.Module
    name: str
    sees_prefix = True

    @override
    def attach(self, tap: Tap) -> Handle:
        taps = _taps.setdefault(self.attention, OrderedDict())
        handle = RemovableHandle(taps)
        taps[handle.id] = (self.name, tap)
        return Handle((handle,))


def has_plain_attention(attention: nn.Module) -> bool:
    """Whether `attention` can be run step by step; some families have fused code alone."""
    return hasattr(sys.modules[type(attention).__module__], PLAIN)


@contextmanager
def tapped(
    hf: Any,
    batch: Batch,
    taps: Sequence[tuple[Attachable, Tap]],
    prefix: KeyValues | None = None,
) -> Iterator[None]:
    """Attach taps, in order, for the length of the context, those inside attention too.

    The model computes attention by its plain code where a tap asks for q, k, v or pattern, so that
    the rest of such a pass differs from another's by roundings.

    Raises:
        ModelError: the pass went by one of those without reaching its tap.
    """
    waiting = {point for point, _ in taps if isinstance(point, InnerPoint)}
    adapted = [(point, _adapted(point, tap, batch, prefix, waiting)) for point, tap in taps]
    with ExitStack() as stack:
        if any(isinstance(point, ProductPoint) for point in waiting):
            stack.enter_context(_plain_attention(hf))
        stack.enter_context(attached(adapted))
        yield
    if waiting:
        module = type(next(iter(waiting)).attention).__name__
        raise ModelError(
            f"{module} did not reach its product of queries and keys: q, k, v and pattern cannot be "
            "read on this model; read z or attn_out"
        )


def _adapted(
    point: Attachable,
    tap: Tap,
    batch: Batch,
    prefix: KeyValues | None,
    waiting: set[InnerPoint],
) -> Tap:
    """`tap` for values whose keys go by column of the batch, and that notes that it was reached."""
    if not isinstance(point, InnerPoint):
        return tap
    if point.name == "pattern":
        tap = _to_keys_that_are_there(tap, batch)
        tap = _by_position(tap, batch.starts) if batch.padded_left else tap
    if point.name in ("k", "v") and point.sees_prefix and prefix is not None:
        tap = _behind(tap, prefix.width)

    def noting(value: Tensor) -> Tensor | None:
        waiting.discard(point)
        return tap(value)

    return noting


def _by_position(tap: Tap, starts: Tensor) -> Tap:
    """Let `tap` see the keys of each row by position in its prompt, and not by column."""

    def on_columns(pattern: Tensor) -> Tensor | None:
        columns, shift = torch.arange(pattern.shape[-1]), starts.cpu()[:, None]
        new = tap(_reordered(pattern, (columns + shift) % len(columns)))
        return None if new is None else _reordered(new, (columns - shift) % len(columns))

    return on_columns


def _to_keys_that_are_there(tap: Tap, batch: Batch) -> Tap:
    """Let no edit attend to padding: a prompt's result may not depend on what it is batched with."""
    # In a model of two stacks the keys may be the encoder's: their number tells.
    masks = [batch.mask, *([batch.source.mask] if isinstance(batch, DecoderBatch) else [])]
    lengths = {mask.shape[1]: mask.sum(dim=1)[:, None] for mask in masks}

    def on_positions(pattern: Tensor) -> Tensor | None:
        new = tap(pattern)
        if new is None:
            return None
        keys = torch.arange(new.shape[-1], device=new.device)
        there = keys < lengths[len(keys)].to(new.device)
        return torch.where(there[:, None, None], new, torch.zeros_like(new))

    return on_positions


def within_prompts(pattern: Tensor, batch: Batch, where: Places) -> Tensor:
    """[N, heads, keys] with 0 beyond the end of each place's prompt, where a key is padding."""
    lengths = batch.mask.sum(dim=1)[where.row].to(pattern.device)
    inside = torch.arange(pattern.shape[-1], device=pattern.device) < lengths[:, None]
    return torch.where(inside[:, None], pattern, torch.zeros_like(pattern))


def _reordered(pattern: Tensor, order: Tensor) -> Tensor:
    """[rows, width, heads, keys] with the keys of each row in `order` [rows, keys]."""
    index = order.to(pattern.device)[:, None, None]
    return pattern.gather(-1, index.expand_as(pattern))


def _behind(tap: Tap, width: int) -> Tap:
    """Let `tap` see the columns that are run, and not the `width` columns of a prefix."""

    def on_every_column(value: Tensor) -> Tensor | None:
        new = tap(value[:, width:])
        return None if new is None else torch.cat([value[:, :width], new], dim=1)

    return on_every_column


@contextmanager
def _plain_attention(hf: Any) -> Iterator[None]:
    """Every attention of the model runs by `_attention` inside the context, and as before after.

    The modules read the setting in copies of their configs: another model, in another thread, may
    share the configs themselves.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)
    holders = [module for module in hf.modules() if "config" in vars(module)]
    own = [module.config for module in holders]
    copies = deepcopy(own)  # all at once: a config inside another stays one with its module's
    try:
        for module, before, config in zip(holders, own, copies, strict=True):
            config.workbench = (get_ident(), before._attn_implementation)
            config._attn_implementation = IMPLEMENTATION
            module.config = config
        yield
    finally:
        for module, config in zip(holders, own, strict=True):
            module.config = config


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, Tensor]:
    """What transformers calls in the kernel's place, with [rows, heads, columns, d_head] tensors.

    Returns:
        [rows, columns, heads, d_head] outputs, [rows, heads, columns, keys] pattern.
    """
    plain: Callable[..., tuple[Tensor, Tensor]] = getattr(
        sys.modules[type(module).__module__], PLAIN
    )
    config: Any = module.config
    owner, usual = getattr(config, "workbench", (None, config._attn_implementation))
    if owner != get_ident():  # a bystander's pass, which is to be what it always is
        from transformers import AttentionInterface

        run: Callable[..., tuple[Tensor, Tensor]] = AttentionInterface().get(usual, plain)
        return run(module, query, key, value, attention_mask, **settings)
    query, key, value = (
        _seen(module, name, states) for name, states in (("q", query), ("k", key), ("v", value))
    )
    out, pattern = plain(module, query, key, value, attention_mask, **settings)
    edited = _seen(module, "pattern", pattern)
    if edited is pattern:
        return out, pattern
    shared = edited.shape[1] // value.shape[1]
    out = edited @ value.repeat_interleave(shared, dim=1)
    return out.transpose(1, 2).contiguous(), edited


def _seen(module: nn.Module, name: str, value: Tensor) -> Tensor:
    """`value` [rows, heads, columns, ...] after the taps of its name, the very same without any."""
    for wanted, tap in _taps.get(module, {}).values():
        if wanted == name:
            new = tap(value.transpose(1, 2))
            value = value if new is None else new.transpose(1, 2)
    return value

"""The oracle's view of attention: what goes into Hugging Face's eager attention product."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from workbench.conformance.own_code import weighted_means
from workbench.conformance.structure import Stack

__all__ = ["HEADS", "Heads", "product"]

HEADS = ("q", "k", "v", "pattern")
EAGER = "eager_attention_forward"  # the function of most model files
OWN = "_attn"  # the method of GPT-Neo and GPT-J

Added = Mapping[tuple[str, int], Tensor]


class Heads:
    """Sees queries, keys, values and weights, [rows, heads, T, ...], as they enter the products.

    Args:
        stacks: by the prefix of their sites.
        added: (q | k | v | pattern, layer) -> [rows, T, heads, ...] to add.

    Attributes:
        places: the prefix and the layer of each attention module, by its id.
        seen: (site, layer) -> [rows, T, heads, ...], before anything was added.
    """

    def __init__(self, stacks: Mapping[str, Stack], added: Added) -> None:
        self.places: dict[int, tuple[str, int]] = {}
        for prefix, stack in stacks.items():
            for layer, block in enumerate(stack.blocks, 1):
                self._note(block.attention, (prefix, layer))
                if block.cross is not None:
                    self._note(block.cross, (prefix + "cross_", layer))
        self.added = added
        self.seen: dict[tuple[str, int], Tensor] = {}

    def _note(self, attention: nn.Module, place: tuple[str, int]) -> None:
        self.places |= {id(module): place for module in attention.modules()}

    def extra(self, module: nn.Module, name: str) -> Tensor | None:
        """What is to be added at a site of `module`, [rows, heads, T, ...]; None for nothing."""
        prefix, layer = self.places[id(module)]
        found = self.added.get((prefix + name, layer))
        return None if found is None else found.transpose(1, 2)

    def enter(self, module: nn.Module, name: str, value: Tensor) -> Tensor:
        """Note what enters a product of `module`, and give what is to enter it."""
        prefix, layer = self.places[id(module)]
        self.seen[prefix + name, layer] = value.detach().transpose(1, 2).clone()
        extra = self.extra(module, name)
        return value if extra is None else value + extra

    def leave(self, module: nn.Module, out: Tensor, weights: Tensor, values: Tensor) -> Tensor:
        """[rows, T, heads, d_head], with what more of the pattern brings of the values."""
        self.enter(module, "pattern", weights)
        extra = self.extra(module, "pattern")
        if extra is None:
            return out
        values = values.repeat_interleave(extra.shape[1] // values.shape[1], dim=1)
        return out + (extra @ values).transpose(1, 2)


@contextmanager
def product(stacks: Mapping[str, Stack], added: Added | None = None) -> Iterator[Heads]:
    """Stand before the eager attention products of every block for the length of the context.

    Raises:
        LookupError: something was to be added to what the model's file does not show.
    """
    heads = Heads(stacks, added or {})
    attentions = [block.attention for stack in stacks.values() for block in stack.blocks]
    file = sys.modules[type(attentions[0]).__module__]
    owners = [inner for outer in attentions for inner in outer.modules() if hasattr(inner, OWN)]
    with ExitStack() as stack:
        if hasattr(file, EAGER):
            stack.enter_context(_replaced(file, EAGER, _function(heads, getattr(file, EAGER))))
        elif owners:
            for module in owners:
                stack.enter_context(_replaced(module, OWN, _method(heads, module)))
        else:
            stack.enter_context(weighted_means(heads.enter, attentions))
        yield heads
    if lost := heads.added.keys() - heads.seen.keys():
        raise LookupError(f"{file.__name__} does not show {', '.join(sorted(n for n, _ in lost))}")


def _function(heads: Heads, own: Callable[..., Any]) -> Callable[..., Any]:
    def forward(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kw: Any) -> Any:
        if id(module) not in heads.places:  # a tower beside the language model
            return own(module, q, k, v, *args, **kw)
        q, k, v = (heads.enter(module, n, x) for n, x in (("q", q), ("k", k), ("v", v)))
        out, weights = own(module, q, k, v, *args, **kw)
        return heads.leave(module, out, weights, v), weights

    return forward


def _method(heads: Heads, module: Any) -> Callable[..., Any]:
    own = getattr(module, OWN)

    def attend(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kw: Any) -> Any:
        q, k, v = (heads.enter(module, n, x) for n, x in (("q", q), ("k", k), ("v", v)))
        out, weights = own(q, k, v, *args, **kw)
        return heads.leave(module, out.transpose(1, 2), weights, v).transpose(1, 2), weights

    return attend


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)

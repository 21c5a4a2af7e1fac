"""Where a model's blocks and branches are, found by what they do and not by a table of names.

The suite holds the engines' table of families against this: blocks are what the first hidden state
goes into; a branch's contribution is what the block's output loses when that branch is emptied.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workbench.conformance.plain import forward, stack_outputs
from workbench.conformance.watching import (
    Call,
    added_to_input,
    emptied,
    first_tensor,
    watched,
)

__all__ = ["Block", "Branch", "Stack", "stacks_of", "twin_of"]

ADDS = {"z": "attn_out", "cross_z": "cross_attn_out", "mlp_act": "mlp_out"}
ROUNDINGS = 8  # of one block's sums, within which a module's tensor is a state or a contribution


@dataclass(frozen=True)
class Branch:
    """Attention, attention to an encoder, or the MLP, of one block.

    Attributes:
        site: what its contribution is called.
        source: the module whose output is exactly its contribution; None where that is scaled or
            summed on its way, and is had by difference alone.
        entry: the module that takes the state before it; None for the first branch, and where all
            branches read the same state.
        carries: whether `entry` passes that state on too, so that nothing goes around it.
    """

    site: str
    source: nn.Module | None
    entry: nn.Module | None
    carries: bool


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        module: the block.
        attention: its attention to its own stack.
        maps: the linear maps whose inputs are sites: z, mlp_act (not for fused experts), cross_z.
        branches: its branches, in order.
        cross: its attention to an encoder, where it has one.
    """

    module: nn.Module
    attention: nn.Module
    maps: dict[str, nn.Module]
    branches: tuple[Branch, ...]
    cross: nn.Module | None


@dataclass(frozen=True)
class Stack:
    """A stack of blocks.

    Attributes:
        blocks: its blocks, in order.
        final_norm: the first norm after them; None where there is none.
    """

    blocks: list[Block]
    final_norm: nn.Module | None


def twin_of(hf: Any, attention: str) -> Any:
    """A copy of a Hugging Face model over the same weights, with `attention` and plain experts.

    Hugging Face itself leaves hooks on a model that was asked for its hidden states: the model
    under test stays free of them.
    """
    shared = {id(tensor): tensor for tensor in [*hf.parameters(), *hf.buffers()]}
    twin = copy.deepcopy(hf, shared)
    for module in twin.modules():
        if "config" in vars(module):  # stacks may have configs of their own
            module.config._attn_implementation = attention
            module.config._experts_implementation = "eager"
    return twin


@torch.no_grad()
def stacks_of(twin: Any, ids: Tensor) -> dict[str, Stack]:
    """The stacks of `twin`, by the prefix of their sites.

    It takes one forward of `ids` [1, T], and a few calls of each block.

    Raises:
        LookupError: no list of modules takes the first hidden state.
    """
    with watched(twin) as calls:
        out = forward(twin, ids, output_hidden_states=True)
    states = stack_outputs(twin, out, "hidden_states")
    return {prefix: _stack(calls, twin, found[0]) for prefix, found in states.items()}


def _stack(calls: list[Call], twin: Any, embedded: Tensor) -> Stack:
    outer = _blocks(calls, twin, embedded)
    later = calls[calls.index(outer[-1]) :]
    norms = (call.module for call in later if "Norm" in type(call.module).__name__)
    inside = set(outer[-1].module.modules())
    return Stack(
        [_block(call) for call in outer], next((n for n in norms if n not in inside), None)
    )


def _blocks(calls: list[Call], twin: Any, embedded: Tensor) -> list[Call]:
    """The calls of the modules in the list whose first is given the first hidden state."""
    by_module = {id(call.module): call for call in calls}
    for module in twin.modules():
        items = list(module.children()) if isinstance(module, nn.ModuleList) else []
        first = by_module.get(id(items[0])) if items else None
        if first is not None and first.given is not None and torch.equal(first.given, embedded):
            return [by_module[id(item)] for item in items]
    raise LookupError("no list of blocks takes the first hidden state")


def _block(outer: Call) -> Block:
    with watched(outer.module) as calls:
        _again(outer)
    inner = [call for call in calls if call.name]
    attention = _outermost(inner, "Attention")
    rest = _outside(inner, attention)
    cross = _outermost(rest, "CrossAttention") if _having(rest, "CrossAttention") else None
    mlp = rest if cross is None else _outside(rest, cross)
    routed = bool(_having(mlp, "Experts"))
    maps = {"z": _last_map(_inside(inner, attention))}
    maps |= {} if cross is None else {"cross_z": _last_map(_inside(inner, cross))}
    maps |= {} if routed else {"mlp_act": _last_map(mlp)}
    silent = _holder(inner, mlp) if routed else maps["mlp_act"]
    lasts = {ADDS[site]: call for site, call in maps.items()} | {"mlp_out": silent}
    return Block(
        module=outer.module,
        attention=attention.module,
        maps={site: call.module for site, call in maps.items()},
        branches=_branches(outer, inner, {site: call.module for site, call in lasts.items()}),
        cross=None if cross is None else cross.module,
    )


def _branches(outer: Call, inner: list[Call], lasts: dict[str, nn.Module]) -> tuple[Branch, ...]:
    """The branches, in order, from each one's last module."""
    modules = list(lasts.values())
    parallel = len(modules) == 2 and _reads_the_same(outer, *modules)
    states = [_without(outer, modules[index:]) for index in range(len(modules) + 1)]
    near = ROUNDINGS * torch.finfo(states[-1].dtype).eps * float(states[-1].abs().max())
    found = []
    for index, site in enumerate(lasts):
        added = states[index + 1] - states[index]
        source = _nearest(((call.module, call.gave) for call in inner), added, near)
        entry = None
        if index and not parallel:
            entry = _nearest(_given_after(inner, modules[index - 1]), states[index], near)
        carries = entry is not None and _carries(outer, entry, modules[index:], states[index])
        found.append(Branch(site, source, entry, carries))
    return tuple(found)


def _given_after(inner: list[Call], last: nn.Module) -> Iterator[tuple[nn.Module, Tensor | None]]:
    """The modules called after `last`, each with what it was given."""
    begun = next(index for index, call in enumerate(inner) if call.module is last)
    return ((call.module, call.given) for call in inner[begun + 1 :])


def _without(outer: Call, lasts: Iterable[nn.Module]) -> Tensor:
    """The block's output when some branches add nothing."""
    with ExitStack() as stack:
        for module in lasts:
            stack.enter_context(emptied(module))
        return _again(outer)


def _carries(outer: Call, entry: nn.Module, lasts: list[nn.Module], state: Tensor) -> bool:
    """Whether what is added to `entry`'s input comes out of the block without the branches."""
    with added_to_input(entry, state):
        return not torch.equal(_without(outer, lasts), state)


def _reads_the_same(outer: Call, first: nn.Module, second: nn.Module) -> bool:
    """Whether the second branch is given the same when the first adds nothing."""
    given = []
    for empty in ((), (first,)):
        with watched(outer.module) as calls:
            _without(outer, empty)
        given += [call.given for call in calls if call.module is second]
    plain, without = given
    assert plain is not None
    assert without is not None
    return torch.equal(plain, without)


def _again(call: Call) -> Tensor:
    """What the called module gives to the same arguments, of which it may overwrite copies."""
    args, kwargs = _copied(call.args), _copied(dict(call.kwargs))
    out = first_tensor(call.module(*args, **kwargs))
    assert out is not None
    return out


def _copied(value: Any) -> Any:
    """Arguments with every tensor cloned."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple):
        return tuple(_copied(item) for item in value)
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, dict) else value


def _having(calls: list[Call], kind: str) -> list[Call]:
    """The calls of modules whose class is called so."""
    return [call for call in calls if kind in type(call.module).__name__]


def _outermost(calls: list[Call], kind: str) -> Call:
    return min(_having(calls, kind), key=lambda call: call.name.count("."))


def _inside(calls: list[Call], outer: Call) -> list[Call]:
    return [call for call in calls if call.name.startswith(outer.name + ".")]


def _outside(calls: list[Call], outer: Call) -> list[Call]:
    within = _inside(calls, outer)
    return [call for call in calls if call is not outer and call not in within]


def _holder(inner: list[Call], mlp: list[Call]) -> Call:
    """The block's own child that holds the experts."""
    child = _having(mlp, "Experts")[0].name.split(".")[0]
    return next(call for call in inner if call.name == child)


def _last_map(calls: list[Call]) -> Call:
    """The last linear map of any library: Linear, GPT-2's Conv1D, quantised and adapted ones."""
    maps = [
        call
        for call in calls
        if hasattr(call.module, "in_features") or type(call.module).__name__ == "Conv1D"
    ]
    return [call for call in maps if not any(call in _inside(maps, other) for other in maps)][-1]


def _nearest(
    tensors: Iterable[tuple[nn.Module, Tensor | None]], wanted: Tensor, near: float
) -> nn.Module | None:
    """The first module whose tensor is nearest to `wanted`, and at most `near` off."""
    errors = [(module, _difference(tensor, wanted)) for module, tensor in tensors]
    module, error = min(errors, key=lambda pair: pair[1])
    return module if error <= near else None


def _difference(value: Tensor | None, wanted: Tensor) -> float:
    if value is None or value.numel() != wanted.numel():
        return torch.inf
    return float((value.reshape(wanted.shape) - wanted).abs().max())

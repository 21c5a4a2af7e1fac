"""The oracle's sites along the residual stream: read from a forward's calls, and added to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from torch import Tensor, nn

from workbench.conformance.structure import Block, Stack
from workbench.conformance.watching import Call, added_to_input, added_to_output

__all__ = ["States", "add_at", "stack_states"]

States = dict[tuple[str, int], Tensor]
"""(site, layer) -> [T, ...], the value at each of a prompt's T positions."""

Calls = Mapping[int, Call]
"""The calls of one forward, by the id of their module."""


def stack_states(stack: Stack, calls: Calls, embedded: Tensor) -> States:
    """The sites of one stack, [1, T, ...], from the calls of a forward and its first state."""
    states = {("embed", 0): embedded, ("resid_post", 0): embedded}
    for layer, block in enumerate(stack.blocks, 1):
        found = _block_states(block, calls, states["resid_post", layer - 1])
        states |= {(name, layer): value for name, value in found.items()}
    if stack.final_norm is not None:
        states["final_norm", len(stack.blocks)] = _gave(calls, stack.final_norm)
    return states


def _block_states(block: Block, calls: Calls, before: Tensor) -> dict[str, Tensor]:
    after = _gave(calls, block.module)
    found = {"resid_pre": before, "resid_post": after}
    found |= {name: _given(calls, module) for name, module in block.maps.items()}
    found |= {b.site: _gave(calls, b.source) for b in block.branches if b.source is not None}
    entries = [branch.entry for branch in block.branches[1:]]
    between = [_given(calls, entry) for entry in entries if entry is not None]
    if between and len(between) == len(entries):
        stream = [before, *(state.reshape(before.shape) for state in between), after]
        for branch, old, new in zip(block.branches, stream, stream[1:], strict=False):
            found.setdefault(branch.site, new - old)
        found |= {"resid_mid": stream[1]} if len(between) == 1 else {}
    return {name: value.reshape(*before.shape[:2], -1) for name, value in found.items()}


def _gave(calls: Calls, module: nn.Module) -> Tensor:
    value = calls[id(module)].gave
    assert value is not None
    return value


def _given(calls: Calls, module: nn.Module) -> Tensor:
    value = calls[id(module)].given
    assert value is not None
    return value


def add_at(stack: ExitStack, parts: Stack, site: tuple[str, int], extra: Tensor) -> None:
    """Within `stack`, add `extra` [rows, T, ...] wherever the value of `site` goes on to.

    Raises:
        LookupError: the stack has no such site.
    """
    name, layer = site
    block = parts.blocks[max(layer, 1) - 1]
    if name == "final_norm":
        stack.enter_context(added_to_output(_there(parts.final_norm, site), extra))
    elif name in ("embed", "resid_pre") or layer == 0:
        stack.enter_context(added_to_input(block.module, extra))
    elif name in ("z", "cross_z", "mlp_act"):
        stack.enter_context(added_to_input(_there(block.maps.get(name), site), extra))
    else:
        _add_to_stream(stack, block, name, extra)


def _there(module: nn.Module | None, site: tuple[str, int]) -> nn.Module:
    if module is None:
        raise LookupError(f"Hugging Face shows no {site[0]}, layer {site[1]}, to add to")
    return module


def _add_to_stream(stack: ExitStack, block: Block, name: str, extra: Tensor) -> None:
    """Add to the state that `name` makes: to what each later branch reads, and to the skip."""
    makers = [branch.site for branch in block.branches]
    maker = {"resid_mid": "attn_out", "resid_post": "mlp_out"}.get(name, name)
    later = block.branches[makers.index(maker) + 1 :]
    for branch in later:
        if branch.entry is not None:
            stack.enter_context(added_to_input(branch.entry, extra))
        if branch.carries:
            return
    stack.enter_context(added_to_output(block.module, extra))

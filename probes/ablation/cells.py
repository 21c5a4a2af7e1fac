"""The states behind an ablation: what the rest of the model goes on from.

A block's output is its input and what its branches add. Blocks that are short-circuited, and an MLP
that is replaced, therefore need no block run: a sum gives the state behind them. A head or an
attention is replaced inside its block, which alone is run for that. From there on the model is
restarted, all that end at a layer together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.ablation.clean import Clean, repeated
from probes.ablation.values import SITES, Values
from workbench.models.batch import Places
from workbench.models.captures import Read
from workbench.models.edits import Edit

__all__ = ["Behind", "ablated", "moved_at_random"]


@dataclass(frozen=True)
class Behind:
    """One component ablated in every row.

    Attributes:
        cell: its number along the layers, and along the heads or last layers (0 where there are none).
        layer: the last layer that is ablated.
        states: [rows, width, d] after it.
        block_tokens: tokens that passed through blocks for it.
    """

    cell: tuple[int, int]
    layer: int
    states: Tensor
    block_tokens: int


def ablated(
    clean: Clean, what: str, values: Values, ranges: Mapping[int, Mapping[int, int]], room: int
) -> Iterator[Behind]:
    """The states behind every ablation.

    Args:
        values: what is put in.
        ranges: first layers, each with the last layers that go with it and their numbers.
        room: tokens that may be run at once.
    """
    for i, (first, lasts) in enumerate(ranges.items()):
        if what == "heads":
            for head, states in _heads(clean, first, values, room):
                yield Behind((i, head), first, states, clean.tokens)
            continue
        found, blocks = _BRANCHES[what](clean, first, max(lasts), values)
        for last, number in lasts.items():
            # One chain of edited blocks serves every range that begins with it: the first one pays.
            tokens = blocks * clean.tokens if last == min(lasts) else 0
            yield Behind((i, number), last, found[last], tokens)


def _blocks(clean: Clean, first: int, last: int, values: Values) -> tuple[dict[int, Tensor], int]:
    """By last layer [rows, width, d], and how many blocks were run."""
    found, state = {}, clean.states[first - 1]
    for layer in range(first, last + 1):
        state = state + values.by_layer[layer].to(state)
        found[layer] = state
    return found, 0


def _mlps(clean: Clean, first: int, last: int, values: Values) -> tuple[dict[int, Tensor], int]:
    added = values.by_layer[first].to(clean.states[0]) - clean.mlp[first - 1]
    begun = clean.states[first] + added
    return {first: begun} | _chain(clean, "mlp", (first, begun), last, values), last - first


def _attentions(
    clean: Clean, first: int, last: int, values: Values
) -> tuple[dict[int, Tensor], int]:
    start = (first - 1, clean.states[first - 1])
    return _chain(clean, "attention", start, last, values), last + 1 - first


def _chain(
    clean: Clean, what: str, start: tuple[int, Tensor], last: int, values: Values
) -> dict[int, Tensor]:
    """By layer [rows, width, d] after each edited block from `start` to `last`, in one pass."""
    layers = range(start[0] + 1, last + 1)
    if not layers:
        return {}
    edits = [Edit((SITES[what], layer), _put(values, layer, len(clean))) for layer in layers]
    read = Read([("resid_post", layer) for layer in layers])
    caught = clean.model.read(clean.batch, [read], edits=edits, start=start)[0]
    empty = torch.zeros_like(clean.states[0])
    return {k: caught.places.scatter(empty, caught["resid_post", k]) for k in layers}


_BRANCHES = {"blocks": _blocks, "mlp": _mlps, "attention": _attentions}


def _put(values: Values, layer: int, rows: int) -> Callable[[Tensor, Places], Tensor]:
    def change(old: Tensor, where: Places) -> Tensor:
        return values.placed(layer, old, where, rows)

    return change


def _heads(clean: Clean, layer: int, values: Values, room: int) -> Iterator[tuple[int, Tensor]]:
    """Each head, and [rows, width, d] after its block; as many heads at once as there is room for."""
    count, rows = clean.model.n_heads, len(clean)
    size = max(1, min(count, room // clean.tokens))
    read = Read([("resid_post", layer)])
    for begin in range(0, count, size):
        heads = range(begin, min(begin + size, count))
        batch = repeated(clean.batch, len(heads))

        def change(old: Tensor, where: Places, begin: int = begin) -> Tensor:
            new, each = old.clone(), torch.arange(len(old), device=old.device)
            head = begin + where.row // rows
            new[each, head] = values.placed(layer, old, where, rows)[each, head]
            return new

        states = clean.states[layer - 1].repeat(len(heads), 1, 1)
        edit, start = Edit(("z", layer), change), (layer - 1, states)
        caught = clean.model.read(batch, [read], edits=[edit], start=start)[0]
        found = caught.places.scatter(torch.zeros_like(states), caught["resid_post", layer])
        yield from zip(heads, found.view(len(heads), rows, *found.shape[1:]), strict=True)


def moved_at_random(clean: Clean, behind: Behind, number: int, seed: int) -> Behind:
    """The control: the state behind, moved as far from the clean one in a random direction.

    At each token the same Euclidean distance, a direction of its own; the same for a prompt in any
    batch and on any device.
    """
    own = clean.states[behind.layer]
    drawn = torch.zeros(own.shape, dtype=torch.float64)
    for row, prompt in enumerate(clean.batch.prompts):
        key = hashlib.sha256(repr((seed, prompt.ids, behind.cell, number)).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
        shape = (len(prompt), own.shape[-1])
        drawn[row, : len(prompt)] = torch.randn(shape, generator=generator, dtype=torch.float64)
    units = torch.nn.functional.normalize(drawn, dim=-1).to(own)
    far = (behind.states - own).norm(dim=-1, keepdim=True)
    return Behind(behind.cell, behind.layer, own + units * far, 0)

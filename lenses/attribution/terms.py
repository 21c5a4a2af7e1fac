"""Direct logit attribution in numbers: the direction of each place, and the terms along it.

Nothing here ever holds a component for every neuron, head or source: maps are taken to the direction
first, [N, d] -> [N, d_in], and then multiplied with what goes into them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from workbench.models.batch import Places
from workbench.models.captures import Captures
from workbench.models.weights import Weights

__all__ = ["Direction", "Largest", "Written", "by_source", "direction", "largest", "written"]

ROWS = 128  # places whose logits are held at a time


@dataclass(frozen=True)
class Direction:
    """What is attributed at each of N places: logit = sum of components . folded + biases.

    Attributes:
        folded: [N, d] u~, the unembedding direction behind the final norm with its scale held.
        norm_bias, unembed_bias: [N] what the final norm's offset and the unembedding's bias add.
        logit: [N] the model's own logit along the direction, before any soft-cap.
        target, foil: [N] token ids; foil is -1 where the mean of the vocabulary stands for it.
        capped: whether the model squashes its logits after.
    """

    folded: Tensor
    norm_bias: Tensor
    unembed_bias: Tensor
    logit: Tensor
    target: Tensor
    foil: Tensor
    capped: bool


def direction(
    captures: Captures,
    weights: Weights,
    states: Tensor,
    normed: Tensor,
    ends: tuple[Tensor, Tensor],
) -> Direction:
    """The direction target - foil, or target - mean of the vocabulary where there is no foil.

    Args:
        captures: for the model's own last step, where there is no target either.
        weights: of the model.
        states: [N, d] after the last block.
        normed: [N, d] what the final norm makes of them.
        ends: [N] ids of target and foil, -1 for none; a target that is missing is the model's own
            top token.
    """
    target, foil = ends
    target = torch.where(target < 0, _own_top(captures.readout, states, target < 0), target)
    wide = torch.promote_types(states.dtype, torch.float32)
    states, normed = states.to(wide), normed.to(wide)
    head = weights.unembedding
    _, norm = weights.final_norm(states)
    u = _difference(head.weight, target, foil, wide).to(states)
    bias = states.new_zeros(len(states))
    if head.bias is not None:
        bias = _difference(head.bias, target, foil, wide).to(states)
    inverse = norm.inverse_scale(states, normed)[:, None]
    return Direction(
        folded=norm.transposed(u) * inverse,
        norm_bias=u @ norm.offset,
        unembed_bias=bias,
        logit=(normed * u).sum(-1) + bias,
        target=target,
        foil=foil,
        capped=head.capped,
    )


def _own_top(readout: Callable[[Tensor], Tensor], states: Tensor, wanted: Tensor) -> Tensor:
    """[N] the model's own top token at the places wanted, -1 elsewhere."""
    found = torch.full(wanted.shape, -1, device=states.device)
    places = wanted.nonzero()[:, 0]
    for begin in range(0, len(places), ROWS):
        rows = places[begin : begin + ROWS]
        found[rows] = readout(states[rows]).argmax(-1)
    return found


def _difference(rows: Tensor, target: Tensor, foil: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, ...] rows of the target less those of the foil, or less the mean of all rows."""
    target, foil = target.to(rows.device), foil.to(rows.device)
    other = rows[foil.clamp_min(0)].to(dtype)
    if (foil < 0).any():
        alone = (foil < 0).view(-1, *[1] * (rows.ndim - 1))
        other = torch.where(alone, rows.mean(0, dtype=dtype), other)
    return rows[target].to(dtype) - other


@dataclass(frozen=True)
class Written:
    """What a branch's last map z = x W + b writes along the direction: x . through + bias.

    Attributes:
        through: [N, d_in] W u~.
        bias: [N] what the map's bias adds, and the offset of a norm behind the map.
    """

    through: Tensor
    bias: Tensor


def written(
    weights: Weights, name: str, layer: int, folded: Tensor, inputs: Tensor, out: Tensor
) -> Written:
    """What the map "o", "ff2" or "down" of a block writes along the direction.

    Of a post-norm family the scale of the norm behind the map is held too.

    Args:
        weights: of the model.
        name: of the map.
        layer: of the block.
        folded: [N, d] u~.
        inputs: [N, d_in] what goes into the map.
        out: [N, d] what the branch adds to the residual stream.
    """
    last = weights.map(name, layer)
    weight = last.weight.to(folded.dtype)
    bias = torch.zeros_like(weight[0]) if last.bias is None else last.bias.to(weight)
    toward = folded.to(weight.device) * weights.multiplier  # 1 where a norm follows
    constant = toward.new_zeros(len(toward))
    after = weights.branch_norm(name, layer)
    if after is not None:
        norm = after[1]
        inverse = norm.inverse_scale(inputs.to(weight) @ weight + bias, out.to(weight))
        constant = toward @ norm.offset.to(weight)
        toward = norm.transposed(toward) * inverse[:, None]
    through, total = toward @ weight.T, constant + toward @ bias
    return Written(through.to(folded.device), total.to(folded.device))


def by_source(
    through: Tensor, pattern: Tensor, values: Tensor, where: Places, every: Places
) -> Tensor:
    """[N, heads, keys] what each head moves from each position of the prompt: alpha v . (W_O u~).

    Args:
        through: [N, heads, d_head] W_O u~.
        pattern: [N, heads, keys] the places' attention to the positions of their prompts.
        values: [M, key heads, d_head] v at every place of the batch; groups of heads share one.
        where: the N places.
        every: the M places.
    """
    found = torch.zeros_like(pattern, dtype=through.dtype)
    grouped = through.view(len(through), values.shape[1], -1, through.shape[-1])
    for row in sorted(set(where.row.tolist())):
        here, own = where.row == row, values[every.row == row].to(through.dtype)
        moved = torch.einsum("nkgd,skd->nkgs", grouped[here], own).flatten(1, 2)
        found[here, :, : len(own)] = moved * pattern[here, :, : len(own)]
    return found


@dataclass(frozen=True)
class Largest:
    """The k largest terms along the last axis, by their absolute value, and the sum of the rest.

    Attributes:
        index: [..., k] of each; -1 where fewer than k terms are not 0.
        value: [..., k]; NaN there.
        rest: [...].
    """

    index: Tensor
    value: Tensor
    rest: Tensor


def largest(terms: Tensor, k: int) -> Largest:
    """The k largest of [..., m] terms."""
    index = terms.abs().topk(min(k, terms.shape[-1])).indices
    value = terms.gather(-1, index)
    rest, there = terms.sum(-1) - value.sum(-1), value != 0
    missing = (0, k - index.shape[-1])
    index = pad(torch.where(there, index, -1), missing, value=-1)
    value = pad(torch.where(there, value, torch.nan), missing, value=torch.nan)
    return Largest(index, value, rest)

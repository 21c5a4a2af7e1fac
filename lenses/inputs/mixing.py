"""How attention mixes its inputs: value-weighted norms, ALTI, and rollout over the layers.

Everything is of one prompt of T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.models.norms import Norm
from workbench.models.weights import Weights

__all__ = ["Mixed", "alti", "value_norms", "with_residual"]

AT_ONCE = 2**22  # numbers of transformed vectors that are held together


def value_norms(pattern: Tensor, values: Tensor, heads: Tensor) -> Tensor:
    """||a_ij v_j W_O^h|| = a_ij ||v_j W_O^h||, without a vector for each pair.

    With W_O^T = Q R, ||v W_O|| = ||v R^T||: d_head numbers a key in place of d, and no squared
    matrix that would lose digits.

    Source: Kobayashi et al. 2020, "Attention is not only a weight", arXiv 2004.10102.

    Args:
        pattern: [N, heads, T].
        values: [T, heads, d_head].
        heads: [heads, d_head, d] each head's part of the output map.

    Returns:
        [N, heads, T]
    """
    triangle = torch.linalg.qr(heads.transpose(1, 2), mode="r").R
    sizes = torch.einsum("jhe,hfe->jhf", values, triangle).norm(dim=-1)
    moved: Tensor = pattern * sizes.T
    return moved


@dataclass(frozen=True)
class Mixed:
    """One layer's attention as a sum over its inputs: y_i = sum_j T_ij + b_i.

    T_ij = sum_h a_ij^h moved_j^h, and on the diagonal own_i too. The scale of a norm behind
    attention is held as it is in this pass, so that T is linear, and its mean and gain are in the
    vectors.

    Attributes:
        pattern: [T, heads, T], times the norm's 1 / scale_i.
        moved: [T, heads, d] v_j W_O^h.
        own: [T, d] what the residual stream brings.
        output: [T, d] y.
    """

    pattern: Tensor
    moved: Tensor
    own: Tensor
    output: Tensor

    @classmethod
    def of(
        cls,
        weights: Weights,
        layer: int,
        *,
        pattern: Tensor,
        values: Tensor,
        z: Tensor,
        states: Tensor,
    ) -> Mixed:
        """Of one layer, from what its pass has shown.

        Args:
            pattern: [T, heads, T].
            values: [T, heads, d_head], a group's value once for each of its heads.
            z: [T, heads, d_head] each head's output.
            states: [T, d] the block's input.
        """
        heads, bias = weights.heads(layer).to(states), weights.map("o", layer).bias
        moved = torch.einsum("jhe,hed->jhd", values, heads)
        added = torch.einsum("ihe,hed->id", z, heads)
        added = added if bias is None else added + bias.to(states) * weights.multiplier
        if (after := weights.branch_norm("o", layer)) is not None:  # Gemma 2 and 3, OLMo 2
            normed, scale, norm = _through(after, added)
            moved, pattern = norm.linear(moved), pattern * scale[:, None, None]
            return cls(pattern, moved, states, states + normed)
        if (around := weights.sum_norm(layer)) is not None:  # BERT
            normed, scale, norm = _through(around, states + added)
            moved, pattern = norm.linear(moved), pattern * scale[:, None, None]
            return cls(pattern, moved, norm.linear(states) * scale[:, None], normed)
        return cls(pattern, moved, states, states + added)


def _through(module_and_norm: tuple[nn.Module, Norm], given: Tensor) -> tuple[Tensor, Tensor, Norm]:
    """What a norm makes of `given`, its 1 / scale there, and the norm in the dtype of `given`."""
    module, norm = module_and_norm
    like = next(module.parameters())
    normed = module(given.to(like)).to(given)
    norm = Norm(norm.gain.to(given), norm.offset.to(given), norm.centres)
    return normed, norm.inverse_scale(given, normed), norm


def alti(mixed: Mixed, visible: Tensor) -> Tensor:
    """Distance-based contributions of each input to each output of one layer's attention.

    c_ij = max(||y_i||_1 - ||y_i - T_ij||_1, e_i), divided by its sum over j, for the visible j;
    0 for all others. As in the paper, but that e_i = eps ||y_i||_1, with the dtype's eps, stands
    for 0, so that a row whose every T_ij is far from y_i is uniform and not 0 / 0.

    Source: Ferrando et al. 2022, arXiv 2203.04212; before-norm blocks as in Ferrando et al. 2022,
    arXiv 2205.11631.

    Args:
        visible: [T, T] whether i sees j.

    Returns:
        [T, T]; rows sum to 1.
    """
    size = mixed.output.abs().sum(-1, keepdim=True)
    near = (size - _distances(mixed, visible)).clamp_min(torch.finfo(size.dtype).eps * size)
    near = torch.where(visible, near, 0)
    return near / near.sum(-1, keepdim=True)


def _distances(mixed: Mixed, visible: Tensor) -> Tensor:
    """[T, T] ||y_i - T_ij||_1, a few rows at a time; infinite beyond the last key that a row sees."""
    count, width = mixed.output.shape
    out = mixed.output.new_full((count, count), torch.inf)
    for rows in _spans(visible, width):
        keys = int(visible[rows].any(0).nonzero().max()) + 1
        weights = mixed.pattern[rows, :, :keys].permute(2, 0, 1)
        output = mixed.output[rows].expand(keys, -1, -1)
        apart = torch.baddbmm(output, weights, mixed.moved[:keys], alpha=-1)  # [keys, rows, d]
        here = torch.arange(rows.start, rows.stop, device=out.device)
        apart[here, here - rows.start] -= mixed.own[rows]
        out[rows, :keys] = torch.linalg.vector_norm(apart, ord=1, dim=-1).T
    return out


def _spans(visible: Tensor, width: int) -> Iterator[slice]:
    """Rows so many at a time that their vectors are few, later ones fewer where they see more."""
    start, count = 0, len(visible)
    sees = visible.sum(-1).tolist()
    while start < count:
        step = max(1, AT_ONCE // (width * min(count, int(sees[start]) + 64)))
        yield slice(start, min(start + step, count))
        start += step


def with_residual(pattern: Tensor) -> Tensor:
    """[N, heads, N] -> [N, N] (mean over heads + I) / 2, rows made to sum to 1.

    The factor of attention rollout, R_l = A_l R_(l-1).

    Source: Abnar & Zuidema 2020, "Quantifying attention flow in transformers", arXiv 2005.00928.
    """
    mixed = pattern.mean(1) + torch.eye(len(pattern), dtype=pattern.dtype, device=pattern.device)
    return mixed / mixed.sum(-1, keepdim=True)

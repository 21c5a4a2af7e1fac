"""Vectors read in the vocabulary that are no states: inputs of maps, and gradients.

The model's own last step serves badly here. The eps in its norm swamps a small gradient (one of norm
.01 is read with a gain of .1), and its offset makes the top tokens of -v others than the bottom
tokens of v. So the default readout has neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lenses.vocabulary import Readout, blocks, follow, row_chunks, top_k
from workbench.errors import SettingError
from workbench.models.norms import Norm
from workbench.models.weights import Unembedding, Weights

__all__ = ["READOUTS", "Projected", "ReadoutName", "project", "readout_of"]

ReadoutName = Literal["odd", "paper", "normalized"]
READOUTS: tuple[str, ...] = get_args(ReadoutName)


@dataclass(frozen=True)
class Projected:
    """Rows of vectors read in the vocabulary, float32 at least.

    Attributes:
        ids, scores: [rows, k] the tokens of greatest score, greatest first.
        followed, ranks: [tokens, rows] score of each followed token, and one more than the number
            of tokens of greater score; NaN where there is none.
    """

    ids: Tensor
    scores: Tensor
    followed: Tensor
    ranks: Tensor


def readout_of(
    name: str, weights: Weights, last_step: Readout, like: Tensor, *, descending: bool
) -> Readout:
    """[rows, d] vectors -> [rows, V] scores.

    Args:
        name: with v a vector, W_U the unembedding (its logit scale in it, a soft-cap not), g and b
            the gain and the offset of the final norm, c(v) = v - mean(v) where that norm centres
            and v elsewhere:
            "odd": W_U (g * c(v) sqrt(d) / |c(v)|). Free of scale, and odd: the scores of -v are
                the negative ones.
            "paper": the model's own last step of v (Katz et al. 2024 read the top of an input).
            "normalized": the model's own last step of v / |v|.
        last_step: the model's own.
        descending: whether the vectors are descents, minus a gradient. "paper" then reads the bottom
            tokens of the gradient, scored by minus their logit.

    Raises:
        SettingError: an unknown name.
        UnsupportedError: "odd" on a model whose last step is not linear.
    """
    if name == "odd":
        return _Odd(weights.final_norm(like)[1], weights.unembedding)
    if name == "normalized":
        return lambda vectors: last_step(_unit(vectors))
    if name == "paper":
        return (lambda vectors: -last_step(-vectors)) if descending else last_step
    raise SettingError(f"readout {name!r}: expected one of {', '.join(READOUTS)}")


@dataclass(frozen=True)
class _Odd:
    norm: Norm
    unembedding: Unembedding

    def __call__(self, vectors: Tensor) -> Tensor:
        weight = self.unembedding.weight
        centred = self.norm.centred(vectors.to(self.norm.gain))
        read = self.norm.gain * _unit(centred) * vectors.shape[-1] ** 0.5
        logits: Tensor = read.to(weight) @ weight.T
        return logits


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1; of a vector of zeros, itself."""
    sizes = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(sizes > 0, sizes, torch.ones_like(sizes))


@torch.no_grad()
def project(
    vectors: Tensor, readout: Callable[[Tensor], Tensor], *, k: int, followed: Tensor
) -> Projected:
    """Read rows of vectors, a few at a time: [rows, V] never exists.

    A followed token's score comes from the same product as the others: by another, its rank would
    move with the rounding.

    Args:
        vectors: [rows, d].
        readout: see `readout_of`.
        k: tokens to keep of each.
        followed: [tokens, rows] ids to follow, -1 for none.
    """
    dtype = torch.promote_types(vectors.dtype, torch.float32)
    rows = len(vectors)
    ids = torch.empty(rows, k, dtype=torch.int64, device=vectors.device)
    scores = torch.empty(rows, k, dtype=dtype, device=vectors.device)
    values, ranks = (scores.new_empty(len(followed), rows) for _ in range(2))
    out = Projected(ids, scores, values, ranks)
    for chunk in row_chunks(vectors):
        _fill(out, chunk, readout(vectors[chunk]).to(dtype), followed)
    return out


def _fill(out: Projected, chunk: slice, logits: Tensor, followed: Tensor) -> None:
    """Some rows' numbers; in a call of its own, so that their logits go before the next are made."""
    for block in blocks(logits):
        at = slice(chunk.start + block.start, chunk.start + block.stop)
        out.ids[at], out.scores[at] = top_k(logits[block], out.ids.shape[1])
        out.followed[:, at], out.ranks[:, at] = follow(logits[block], followed[:, at])

"""Statistics of residual states read in the vocabulary, streamed: [layers, tokens, V] never exists.

Rows of logits are made a few at a time by the model's own last step, and every number is taken
from them while they are in cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Readout", "Statistics", "blocks", "follow", "row_chunks", "statistics", "top_k"]

PRODUCT_ROWS = {"cpu": 128, "cuda": 1024}  # rows of one matrix product
CACHE_BYTES = 2**20  # the statistics of a block of rows stay in the caches: so much a thread
LOWEST = (
    -1e30
)  # stands for a logit of -inf: 0 times it is 0, and half a least float times it is small
TOP_BLOCK = 64  # top-k looks at the maxima of blocks of this many tokens first

Readout = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Statistics:
    """Numbers of [layer, place] states, float32 at least, on the device of the states.

    Attributes:
        top_id, top_logprob: [layer, place, k] most probable tokens, log-probabilities in nat.
        entropy: [layer, place] in nat.
        kl: [layer, place] KL(final || layer) in nat; infinite where the layer excludes a token.
        js: [layer, place] Jensen-Shannon divergence of final and layer in nat, at most ln 2. Both
            are differences of sums: in float32 what is below 1e-5 is rounding.
        logprob: [target, layer, place] log-probability of each followed token in nat; NaN where
            there is none.
        rank: [target, layer, place] one more than the number of tokens of greater logit, so 1 is
            best; NaN where there is none.
    """

    top_id: Tensor
    top_logprob: Tensor
    entropy: Tensor
    kl: Tensor
    js: Tensor
    logprob: Tensor
    rank: Tensor

    @classmethod
    def empty(cls, layers: int, places: int, k: int, targets: int, like: Tensor) -> Statistics:
        """Room for the numbers, on the device of `like`."""
        real = like.new_full((layers, places), math.nan)
        top = like.new_empty(layers, places, k)
        follow = like.new_full((targets, layers, places), math.nan)
        ids = torch.empty_like(top, dtype=torch.int64)
        return cls(
            ids, top, real, real.clone(), real.clone(), follow, torch.full_like(follow, math.nan)
        )


@torch.no_grad()
def statistics(
    states: Sequence[Tensor],
    final: Tensor,
    readout: Readout,
    *,
    k: int,
    followed: Tensor,
    compare: bool = True,
) -> Statistics:
    """Read every state in the vocabulary and compare it with the final one.

    Args:
        states: one [N, d] tensor a layer; the one that *is* `final` is not read twice.
        final: [N, d] states after the last block.
        readout: [rows, d] -> [rows, V] logits; a new tensor, which is overwritten.
        k: how many top tokens, at most V.
        followed: [T, N] ids of tokens to follow; -1 where there is none.
        compare: whether to compare with `final`; KL and JS are NaN otherwise.
    """
    dtype = torch.promote_types(final.dtype, torch.float32)
    places = final.shape[0]
    like = final.new_empty(0, dtype=dtype)
    out = Statistics.empty(len(states), places, k, followed.shape[0], like)
    for rows in row_chunks(final):
        final_logits = readout(final[rows]).to(dtype)  # also the logits of the layer that is final
        reference = _Reference.of(final_logits) if compare else None
        for layer, state in enumerate(states):
            logits = final_logits if state is final else readout(state[rows]).to(dtype)
            for block in blocks(logits):
                where = slice(rows.start + block.start, rows.start + block.stop)
                final_rows = None if reference is None else reference.rows(block)
                _fill(out, layer, where, logits[block], final_rows, followed[:, where])
    return out


@dataclass(frozen=True)
class _Reference:
    """The final distribution of some rows: what every layer is compared with.

    Attributes:
        half: [rows, V] half the probabilities, never quite 0, so that a logarithm is finite.
        entropy: [rows] in nat.
    """

    half: Tensor
    entropy: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> _Reference:
        half, entropy = torch.empty_like(logits), logits.new_empty(logits.shape[0])
        for block in blocks(logits):
            shifted = (logits[block] - logits[block].amax(-1, keepdim=True)).clamp_min_(LOWEST)
            p = torch.exp(shifted, out=half[block])
            total = p.sum(-1)
            entropy[block] = total.log() - _dot(p, shifted) / total
            p.mul_(0.5 / total[:, None]).add_(torch.finfo(logits.dtype).tiny)
        return cls(half, entropy)

    def rows(self, block: slice) -> _Reference:
        return _Reference(self.half[block], self.entropy[block])


def _fill(
    out: Statistics,
    layer: int,
    where: slice,
    z: Tensor,
    final: _Reference | None,
    followed: Tensor,
) -> None:
    """The statistics of one layer at some places; the logits `z` [rows, V] are overwritten."""
    ids, values = top_k(z, out.top_id.shape[-1])
    scores, ranks = follow(z, followed)
    peak = values[:, :1]
    z.sub_(peak).clamp_min_(LOWEST)
    p = z.exp()
    total = p.sum(-1)
    log_total = total.log()
    entropy = log_total - _dot(p, z) / total
    normaliser = (log_total + peak[:, 0])[:, None]
    out.top_id[layer, where] = ids
    out.top_logprob[layer, where] = values - normaliser
    out.entropy[layer, where] = entropy
    out.logprob[:, layer, where] = scores - normaliser.T
    out.rank[:, layer, where] = ranks
    if final is not None:
        kl = log_total - 2 * _dot(final.half, z) - final.entropy
        mixture = p.mul_(0.5 / total[:, None]).add_(final.half)
        js = -_dot(mixture, torch.log(mixture, out=z)) - (entropy + final.entropy) / 2
        kl = torch.where(kl > -LOWEST * torch.finfo(kl.dtype).eps, torch.inf, kl)
        out.kl[layer, where] = kl.clamp_min(0)  # rounding alone can make it negative
        out.js[layer, where] = js.clamp(0, math.log(2))


def follow(z: Tensor, followed: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and ranks, [T, rows] each, of the followed ids [T, rows]; NaN where the id is -1."""
    scores, ranks = z.new_full(followed.shape, math.nan), z.new_full(followed.shape, math.nan)
    for target, ids in enumerate(followed):
        given = ids >= 0
        if not given.any():
            continue
        score = z.gather(1, ids.clamp_min(0)[:, None])
        better = (z > score).sum(-1)
        scores[target] = torch.where(given, score[:, 0], math.nan)
        ranks[target] = torch.where(given, better + 1, math.nan)
    return scores, ranks


def top_k(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids and values, [rows, k] each, of the k greatest of z [rows, V], greatest first.

    Exact: the k greatest lie in the k blocks of greatest maximum, so only those are searched.
    """
    vocabulary = z.shape[-1]
    n_blocks = vocabulary // TOP_BLOCK
    if n_blocks < 4 * k:
        values, ids = z.topk(k)
        return ids, values
    whole = n_blocks * TOP_BLOCK
    maxima = z[:, :whole].reshape(-1, n_blocks, TOP_BLOCK).amax(-1)
    blocks = maxima.topk(k).indices
    candidates = (
        blocks[:, :, None] * TOP_BLOCK + torch.arange(TOP_BLOCK, device=z.device)
    ).flatten(1)
    rest = torch.arange(whole, vocabulary, device=z.device).expand(z.shape[0], -1)
    candidates = torch.cat([candidates, rest], dim=1)
    values, chosen = z.gather(1, candidates).topk(k)
    return candidates.gather(1, chosen), values


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """[rows, V] x [rows, V] -> [rows], summed pairwise: a BLAS dot loses 1e-4 over 50,000 terms."""
    return (left * right).sum(-1)


def row_chunks(states: Tensor) -> Iterator[slice]:
    """Rows of [N, d] states whose logits are made in one matrix product."""
    return _spans(len(states), PRODUCT_ROWS.get(states.device.type, PRODUCT_ROWS["cpu"]))


def blocks(logits: Tensor) -> Iterator[slice]:
    """Blocks of rows that stay in cache; a GPU takes them all at once."""
    rows, width = logits.shape
    fit = max(1, torch.get_num_threads() * CACHE_BYTES // (width * logits.itemsize))
    return _spans(rows, fit if logits.device.type == "cpu" else rows)


def _spans(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))

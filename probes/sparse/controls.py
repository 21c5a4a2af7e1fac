"""What a probe must be held against: labels without meaning, and the bits that it saves."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus

from probes.sparse.solvers import Scale, fit_supports

__all__ = ["PORTIONS", "control_labels", "online_code"]

PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


def control_labels(types: Tensor, labels: Tensor, seed: int = 0) -> Tensor | None:
    """[n] labels of a control task: each type of token is drawn into a class, once and for all.

    Types are taken in random order until about as many examples are positive as in `labels`. Selectivity
    is the F1 of the task less that of the control, with the same units to choose from: a probe that
    memorises types has none.

    Source: Hewitt and Liang 2019, "Designing and Interpreting Probes with Control Tasks",
    arXiv 1909.03368.

    Args:
        types: [n] token ids.

    Returns:
        None where there is no such task: one type, or none whose drawing leaves both classes.
    """
    _, code, size = torch.unique(types, return_inverse=True, return_counts=True)
    order = torch.randperm(len(size), generator=torch.Generator().manual_seed(seed))
    reached = size.cpu()[order].cumsum(0)
    nearest = int((reached - labels.sum().cpu()).abs().argmin()) + 1
    if nearest >= len(size):
        return None
    drawn = torch.zeros(len(size), dtype=torch.long)
    drawn[order[:nearest]] = 1
    return drawn.to(code.device)[code]


def online_code(columns: Tensor, labels: Tensor, groups: Tensor, seed: int = 0) -> float:
    """The compression of labels by a probe: bits of a uniform code over bits of the online code.

    Groups come in a random order; each portion of them is coded by the probe that was fitted on all
    before it: L = t_1 + sum over portions of -log2 p(labels | columns), and the compression is n / L. 1
    is what no information gives; the first portion, and those before which one class alone was seen, are
    coded by one bit a label.

    Source: Voita and Titov 2020, "Information-Theoretic Probing with Minimum Description Length",
    arXiv 2003.12298.

    Args:
        columns: [n, k] activations of the probe's units.
        labels: [n] 0 and 1.
        groups: [n] codes.
    """
    _, code = torch.unique(groups, return_inverse=True)
    count = int(code.max()) + 1
    rank = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[code.cpu()]
    ends = sorted({max(1, math.ceil(share * count)) for share in PORTIONS})
    bits = float((rank < ends[0]).sum())
    for before, end in pairwise(ends):
        seen, next_ones = rank < before, (rank >= before) & (rank < end)
        bits += _bits(columns[seen], labels[seen], columns[next_ones], labels[next_ones])
    return len(labels) / bits


def _bits(seen: Tensor, known: Tensor, columns: Tensor, labels: Tensor) -> float:
    """Of labels under the probe fitted on what was seen, classes weighted as they are."""
    if len(torch.unique(known)) < 2:
        return float(len(labels))
    scale = Scale.of(seen)
    every = torch.arange(seen.shape[1])[None]
    fit = fit_supports(scale(seen), every, known, even=False)
    logits = scale(columns) @ fit.weight[0] + fit.bias[0]
    return float(softplus((1 - 2 * labels.to(logits)) * logits).sum()) / math.log(2)

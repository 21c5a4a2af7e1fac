"""Value-weighted norms and ALTI of one GPT-2-small-shaped layer, against forms that hold every vector.

12 heads of width 64, d = 768, one prompt of 128 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.clock import Side, interleave, peak_mib
from benchmarks.line import Line
from lenses.inputs.mixing import Mixed, alti, value_norms

__all__ = ["run"]

TOKENS, HEADS, D_HEAD, WIDTH = 128, 12, 64, 768


def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """Both sides start from the pattern, the values and the output map, and agree first."""
    torch.manual_seed(0)
    visible = torch.ones(TOKENS, TOKENS, device=device).tril().bool()
    scores = torch.randn(TOKENS, HEADS, TOKENS, device=device)
    pattern = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)
    values = torch.randn(TOKENS, HEADS, D_HEAD, device=device)
    heads = torch.randn(HEADS, D_HEAD, WIDTH, device=device) * 0.02
    states = torch.randn(TOKENS, WIDTH, device=device)
    given = (pattern, values, heads)
    yield from _lines(
        "value-weighted norms",
        partial(value_norms, *given),
        {"every vector by head": partial(_naive_norms, *given)},
        rounds,
        device,
        0.003,
    )
    more = (*given, states, visible)
    yield from _lines(
        "ALTI",
        partial(_alti, *more),
        {
            "every vector by head": partial(_naive_alti, *more),
            "every vector": partial(_summed_alti, *more),
        },
        rounds,
        device,
        None,
    )


def _lines(
    what: str,
    ours: Side,
    naive: dict[str, Side],
    rounds: int,
    device: torch.device,
    goal: float | None,
) -> Iterator[Line]:
    for side in naive.values():  # float32 over 768 terms
        torch.testing.assert_close(ours(), side(), rtol=1e-4, atol=1e-5)
    times = interleave({"ours": ours, **naive}, rounds)
    memory = peak_mib(ours, device)
    for number, (name, side) in enumerate(naive.items()):
        detail = f"{times.median('ours') * 1e3:.2f} ms against {times.median(name) * 1e3:.1f} ms"
        limit = goal if number == 0 else None
        yield Line(f"{what} / {name}, time", times.ratio("ours", name), limit, detail)
        other = peak_mib(side, device)
        detail = f"{memory:.1f} MiB against {other:.0f} MiB"
        yield Line(f"{what} / {name}, peak memory", memory / other, None, detail)


def _vectors(pattern: Tensor, values: Tensor, heads: Tensor) -> Tensor:
    """[query, heads, key, d] a_ij v_j W_O^h."""
    moved = torch.einsum("jhe,hed->hjd", values, heads)
    return pattern[..., None] * moved


def _naive_norms(pattern: Tensor, values: Tensor, heads: Tensor) -> Tensor:
    return _vectors(pattern, values, heads).norm(dim=-1)


def _alti(
    pattern: Tensor, values: Tensor, heads: Tensor, states: Tensor, visible: Tensor
) -> Tensor:
    moved = torch.einsum("jhe,hed->jhd", values, heads)
    output = states + torch.einsum("ihj,jhd->id", pattern, moved)
    return alti(Mixed(pattern, moved, states, output), visible)


def _naive_alti(
    pattern: Tensor, values: Tensor, heads: Tensor, states: Tensor, visible: Tensor
) -> Tensor:
    return _shares(_vectors(pattern, values, heads).sum(1), states, visible)


def _summed_alti(
    pattern: Tensor, values: Tensor, heads: Tensor, states: Tensor, visible: Tensor
) -> Tensor:
    moved = torch.einsum("jhe,hed->jhd", values, heads)
    return _shares(torch.einsum("ihj,jhd->ijd", pattern, moved), states, visible)


def _shares(parts: Tensor, states: Tensor, visible: Tensor) -> Tensor:
    """ALTI from every T_ij [query, key, d]."""
    output = states + parts.sum(1)
    here = torch.arange(len(states), device=states.device)
    parts[here, here] += states
    near = output.abs().sum(-1, keepdim=True) - (output[:, None] - parts).abs().sum(-1)
    near = torch.where(visible, near.clamp_min(0), 0)
    return near / near.sum(-1, keepdim=True)

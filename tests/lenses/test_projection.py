"""Readouts of vectors that are no states, streamed against naive."""

from __future__ import annotations

import pytest
import torch

import workbench as wb
from lenses.projection import READOUTS, project, readout_of
from tests.tiny import model
from workbench.models.norms import Norm

FAMILIES = ["gpt2", "llama", "gemma2", "cohere", "opt_projected"]


def vectors(rows: int = 150) -> torch.Tensor:
    return torch.randn(rows, 16, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", READOUTS)
def test_streamed_is_naive(family: str, name: str) -> None:
    """More rows than one product takes, so that the chunks meet."""
    hooked, states = model(family), vectors()
    readout = readout_of(name, hooked.weights, hooked.readout, states, descending=False)
    ids = torch.randint(0, 257, (2, len(states)))
    ids[1, 3] = -1
    found = project(states, readout, k=4, followed=ids)
    logits = readout(states)
    torch.testing.assert_close(found.scores, logits.topk(4).values)
    assert torch.equal(logits.gather(1, found.ids), found.scores)
    assert torch.equal(found.followed[0], logits.gather(1, ids[0][:, None])[:, 0])
    assert torch.equal(found.ranks[0], (logits > found.followed[0][:, None]).sum(1) + 1.0)
    assert torch.isnan(found.ranks[1, 3])


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_is_odd_and_free_of_scale(family: str) -> None:
    hooked, states = model(family), vectors(8)
    readout = readout_of("odd", hooked.weights, hooked.readout, states, descending=True)
    torch.testing.assert_close(readout(-1e-4 * states), -readout(states))
    assert torch.equal(
        readout(-states).topk(5).indices, readout(states).topk(5, largest=False).indices
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_is_the_last_step_without_offset_eps_and_cap(family: str) -> None:
    """At a state, whose scale is far above eps: the frozen-norm logits less what does not scale."""
    hooked, states = model(family), vectors(8)
    _, norm = hooked.weights.final_norm(states)
    head = hooked.weights.unembedding
    centred = states - states.mean(-1, keepdim=True) if norm.centres else states
    scale = centred.square().mean(-1, keepdim=True).sqrt()
    expected = (norm.gain * centred / scale) @ head.weight.T
    readout = readout_of("odd", hooked.weights, hooked.readout, states, descending=True)
    torch.testing.assert_close(readout(states), expected)


def test_papers_shift_is_the_bottom_of_the_gradient() -> None:
    hooked, deltas = model("gpt2"), vectors(8)
    readout = readout_of("paper", hooked.weights, hooked.readout, deltas, descending=True)
    bottom = hooked.readout(deltas).topk(5, largest=False)
    found = project(-deltas, readout, k=5, followed=torch.zeros(0, 8, dtype=torch.long))
    assert torch.equal(found.ids, bottom.indices)
    torch.testing.assert_close(found.scores, -bottom.values)


def test_the_eps_of_a_norm_swamps_a_small_gradient() -> None:
    """Why odd is the default: of a vector of norm .01 the model's own step shows its offset."""
    hooked = model("gpt2")
    norm = Norm.of(hooked.hf.transformer.ln_f, vectors(1))
    small = vectors(64) * 1e-6
    paper = readout_of("paper", hooked.weights, hooked.readout, small, descending=False)
    odd = readout_of("odd", hooked.weights, hooked.readout, small, descending=False)
    offset = hooked.weights.unembedding.weight @ norm.offset
    shared = (paper(small).topk(10).indices == offset.topk(10).indices).double().mean()
    assert shared > 0.9
    overlap = [
        len(set(a) & set(b))
        for a, b in zip(
            paper(small).topk(10).indices.tolist(),
            odd(small).topk(10).indices.tolist(),
            strict=True,
        )
    ]
    assert sum(overlap) / 640 < 0.5


def test_a_vector_of_zeros_and_unknown_readouts() -> None:
    hooked = model("gpt2")
    readout = readout_of("odd", hooked.weights, hooked.readout, vectors(1), descending=True)
    assert readout(torch.zeros(1, 16).double()).abs().max() == 0
    with pytest.raises(wb.SettingError, match="readout 'other': expected one of odd"):
        readout_of("other", hooked.weights, hooked.readout, vectors(1), descending=True)

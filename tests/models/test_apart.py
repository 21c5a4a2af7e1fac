"""Heads and MLPs that read streams of their own; the norms through which branches read the stream."""

from __future__ import annotations

import pytest
import torch

import workbench as wb
from tests.tiny import DENSE, PARALLEL, model
from workbench.models.apart import heads_apart, mlp_apart

POST_NORM = ("gemma2", "gemma3_text", "gemma3", "olmo2")
PLAIN = [family for family in DENSE if family not in POST_NORM]
FLOAT32 = ("gpt_neo", "gptj")  # their softmax is in float32 whatever the dtype
TEXTS = ["abcdefghijk", "hello world"]
LAYER = 2


def caught(hooked: wb.Engine, batch: wb.Batch, site: str, layer: int = LAYER) -> torch.Tensor:
    return hooked.capture(batch, [(site, layer)])[site, layer].unflatten(0, batch.ids.shape)


def read_by_mlp(family: str) -> str:
    return "resid_pre" if family in PARALLEL else "resid_mid"


@pytest.mark.parametrize("family", PLAIN)
def test_the_norm_of_a_branch_gives_what_its_maps_read(family: str) -> None:
    hooked = model(family)
    batch, weights = hooked.batch(TEXTS), hooked.weights
    first = next(name for name in ("ff1", "up") if name in weights.maps)
    factors = hooked.factors(batch, lambda logits, _: logits.sum(), [("q", LAYER), (first, LAYER)])
    for branch, name, site in (
        ("attention", "q", "resid_pre"),
        ("mlp", first, read_by_mlp(family)),
    ):
        normed = weights.input_norm(branch, LAYER)(caught(hooked, batch, site))  # type: ignore[arg-type]
        # the same module on the same numbers, in rows or flat
        torch.testing.assert_close(normed.flatten(0, 1), factors[name, LAYER].x, atol=1e-13, rtol=0)


@pytest.mark.parametrize("family", PLAIN)
def test_equal_streams_give_what_the_block_gives(family: str) -> None:
    hooked = model(family)
    batch, weights = hooked.batch(TEXTS), hooked.weights
    states = caught(hooked, batch, "resid_pre")
    counts = {name: weights.map(name, LAYER).weight.shape[1] // weights.d_head for name in "qkv"}
    streams = {name: states[:, None].expand(-1, n, -1, -1) for name, n in counts.items()}
    with hooked.blocks(batch) as blocks:
        z = heads_apart(blocks, weights, LAYER, streams)
        mlp = mlp_apart(blocks, LAYER, caught(hooked, batch, read_by_mlp(family)))
    atol = 1e-5 if family in FLOAT32 else 1e-13  # roundings of one block in float64
    torch.testing.assert_close(z, caught(hooked, batch, "z"), atol=atol, rtol=0)
    torch.testing.assert_close(mlp, caught(hooked, batch, "mlp_out"), atol=atol, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_queries_keys_and_values_are_apart(family: str) -> None:
    """Another stream for one head's queries moves that head alone; for its values, linearly."""
    hooked = model(family)
    batch, weights = hooked.batch(TEXTS), hooked.weights
    states = caught(hooked, batch, "resid_pre")
    counts = {name: weights.map(name, LAYER).weight.shape[1] // weights.d_head for name in "qkv"}
    streams = {name: states[:, None].repeat(1, n, 1, 1) for name, n in counts.items()}
    streams["q"][:, 1] = states.flip(1)
    with hooked.blocks(batch) as blocks:
        found = heads_apart(blocks, weights, LAYER, streams)
    moved = (found - caught(hooked, batch, "z")).abs().amax((0, 1, 3))
    assert moved[0] < 1e-13
    assert moved[1] > 1e-3


@pytest.mark.parametrize("family", POST_NORM)
def test_post_norm_families_are_refused_by_name(family: str) -> None:
    with pytest.raises(wb.UnsupportedError, match=r"goes through a norm"):
        model(family).weights.input_norm("attention", 1)


def test_factors_restart() -> None:
    hooked = model("llama")
    batch = hooked.batch(TEXTS)
    start = (0, caught(hooked, batch, "resid_post", 0))
    sides = [
        hooked.factors(batch, lambda logits, _: logits.sum(), [("q", LAYER)], start=given)
        for given in (None, start)
    ]
    torch.testing.assert_close(sides[0]["q", LAYER].delta, sides[1]["q", LAYER].delta)
    moved = hooked.factors(
        batch, lambda logits, _: logits.sum(), [("q", LAYER)], start=(0, start[1] * 2)
    )
    assert not torch.allclose(moved["q", LAYER].delta, sides[0]["q", LAYER].delta)

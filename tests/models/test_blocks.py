"""Single blocks with keys and values of the caller's, and states with something added at the embedding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.tiny import EVERY, FAMILIES, hf_model, model
from workbench.models.blocks import partly

TEXTS = ["abcdefghijk", "hello world"]  # longer than every sliding window
FLOAT32 = ("gpt_neo", "gptj")  # their softmax is in float32 whatever the dtype


def states(hooked: wb.Engine, batch: wb.Batch) -> list[torch.Tensor]:
    caught = hooked.capture(batch, "resid_post")
    return [
        caught["resid_post", layer].view(*batch.ids.shape, -1)
        for layer in range(hooked.n_layers + 1)
    ]


def tolerance(family: str) -> dict[str, float]:
    """Roundings of a block in float64, on states of a few units."""
    return {"atol": 1e-5 if family in FLOAT32 else 1e-13, "rtol": 0}


@pytest.mark.parametrize("family", EVERY)
def test_blocks_one_by_one_are_the_forward_pass(family: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS)
    expected = states(hooked, batch)
    with hooked.blocks(batch) as blocks:
        for layer in range(1, hooked.n_layers + 1):
            found, _ = blocks.run(layer, expected[layer - 1])
            torch.testing.assert_close(found, expected[layer], **tolerance(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_branches_apart_make_up_the_block(family: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS)
    expected, parallel = states(hooked, batch), hooked.anatomy.parallel
    with hooked.blocks(batch) as blocks:
        for layer in (1, hooked.n_layers):
            before = expected[layer - 1]
            between = before + blocks.branch(layer, "attention", before)
            found = between + blocks.branch(layer, "mlp", before if parallel else between)
            torch.testing.assert_close(found, expected[layer], **tolerance(family))
            assert not torch.equal(between, expected[layer])


def test_branches_of_a_block_that_is_no_sum_are_refused() -> None:
    hooked = model("bert")
    batch = hooked.batch(TEXTS)
    with (
        pytest.raises(wb.UnsupportedError, match="bert has no attn_out: its blocks normalise"),
        hooked.blocks(batch) as blocks,
    ):
        blocks.branch(1, "attention", hooked.embedded(batch))


@pytest.mark.parametrize("family", FAMILIES)
def test_later_columns_of_more_rows_go_on_from_keys_and_values(family: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS)
    expected = states(hooked, batch)
    with hooked.blocks(batch) as blocks:
        for layer in (1, hooked.n_layers):
            whole = expected[layer - 1]
            _, pair = blocks.run(layer, whole)
            assert pair is not None
            for first in (3, blocks.width - 1):
                before = (pair[0][:, :, :first], pair[1][:, :, :first])
                part = whole[:, first:].repeat(3, 1, 1)
                found, _ = blocks.run(layer, part, first=first, before=before)
                again = expected[layer][:, first:].repeat(3, 1, 1)
                torch.testing.assert_close(found, again, **tolerance(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_last_block_may_run_for_the_tokens_that_are_read(family: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS)
    expected, last = states(hooked, batch), hooked.n_layers
    read = torch.zeros_like(batch.mask, dtype=torch.bool)
    read[0, -2:] = read[1, 1] = True
    with (
        hooked.blocks(batch) as blocks,
        partly(blocks.anatomy, last, (), attention=read, mlp=read),
    ):
        found, _ = blocks.run(last, expected[last - 1])
    torch.testing.assert_close(found[read], expected[last][read], **tolerance(family))


def test_tokens_left_out_pass_through_neither_part() -> None:
    hooked = model("gpt2")
    batch = hooked.batch(TEXTS)
    expected = states(hooked, batch)
    none = torch.zeros_like(batch.mask, dtype=torch.bool)
    with hooked.blocks(batch) as blocks, partly(blocks.anatomy, 1, (), attention=none, mlp=none):
        found, _ = blocks.run(1, expected[0])
    left = torch.ones_like(none)
    left[0, 0] = False  # one token gives the width of what the parts give
    assert torch.equal(found[left], expected[0][left])


def test_block_tokens_are_counted() -> None:
    hooked = model("gpt2")
    batch = hooked.batch(TEXTS)
    with hooked.blocks(batch) as blocks:
        blocks.run(1, hooked.embedded(batch))
        assert blocks.block_tokens == batch.ids.numel()


def test_rows_of_unequal_length_are_refused() -> None:
    hooked = model("gpt2")
    with (
        pytest.raises(wb.SettingError, match="rows of unequal length"),
        hooked.blocks(["ab", "abc"]),
    ):
        pass


@pytest.mark.parametrize("family", EVERY)
def test_a_shift_of_the_embedding_is_another_token(family: str) -> None:
    """Adding the difference of two rows of the matrix is giving the other token."""
    hooked = model(family)
    batch = hooked.batch(TEXTS)
    rows, ids = hooked.embedding, batch.ids.clone()
    shift = rows.new_zeros(*ids.shape, rows.shape[1])
    shift[1, 3], ids[1, 3] = rows[5] - rows[ids[1, 3]], 5
    found = hooked.embedded(batch, shift)
    torch.testing.assert_close(found, hooked.embedded(replace(batch, ids=ids)), atol=1e-14, rtol=0)
    assert not torch.equal(found, hooked.embedded(batch))


@pytest.mark.parametrize("engine", ["transformer_lens", "nnsight"])
def test_every_engine_embeds(engine: str) -> None:
    plain = model("gpt2")
    other = wb.load(hf_model("gpt2"), plain.tokenizer, engine=engine)
    batch = plain.batch(TEXTS)
    torch.testing.assert_close(other.embedded(batch), plain.embedded(batch), atol=0, rtol=0)

"""q, k, v, pattern and z against Hugging Face's own eager attention, and against each other."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import workbench as wb
from tests.models.test_engine import close, padded
from tests.tiny import (
    EVERY,
    FAMILIES,
    GATED,
    LAYERS,
    OWN_CODE,
    TEXTS,
    having,
    hf_model,
    model,
    tokenizer,
)

CAUSAL = [family for family in FAMILIES if family not in OWN_CODE]
INSIDE = [*CAUSAL, "bert"]
SITES = ["q", "k", "v", "pattern", "z"]
PADDINGS = ["left", "right"]
LONG = "a b c d e f g h i j"


@cache
def eager(family: str) -> Any:
    """An unhooked Hugging Face model of the same weights, in eager attention."""
    hf = hf_model(family)
    hf.set_attn_implementation("eager")
    return hf


def eager_patterns(hooked: wb.TorchModel, hf: Any, text: str) -> list[Tensor]:
    """[heads, queries, keys] of each layer, by Hugging Face."""
    ids = torch.tensor([hooked.encode(wb.Prompt(text)).ids])
    with torch.no_grad():
        found = hf(ids, use_cache=False, output_attentions=True).attentions
    return [layer[0] for layer in found]


@pytest.mark.parametrize("family", INSIDE)
@pytest.mark.parametrize("padding", PADDINGS)
def test_pattern_equals_hugging_face_eager(family: str, padding: str) -> None:
    hooked = model(family)
    caught = hooked.capture(hooked.batch(TEXTS, padding), ["pattern"])
    for row, text in enumerate(TEXTS):
        mine = caught.places.row == row
        for layer, expected in enumerate(eager_patterns(hooked, eager(family), text), start=1):
            found = caught["pattern", layer][mine]
            length = expected.shape[-1]
            torch.testing.assert_close(
                found[..., :length], expected.transpose(0, 1), **close(family)
            )
            assert not found[..., length:].any()


@pytest.mark.parametrize("family", INSIDE)
def test_a_row_of_the_pattern_sums_to_one(family: str) -> None:
    hooked = model(family)
    total = hooked.capture(hooked.batch(TEXTS, "left"), ["pattern"]).stack("pattern").sum(-1)
    if family == "gpt_oss":  # some of the attention goes to the sink
        assert (total < 1).all()
        assert (total > 0).all()
        return
    torch.testing.assert_close(total, torch.ones_like(total), **close(family))


@pytest.mark.parametrize(("family", "site"), having(SITES))
@pytest.mark.parametrize("padding", PADDINGS)
def test_a_batch_of_unequal_lengths_equals_single_prompts(
    family: str, site: str, padding: str
) -> None:
    hooked = model(family)
    caught = hooked.capture(hooked.batch(TEXTS, padding), [site])
    for row, text in enumerate(TEXTS):
        single = hooked.capture(text, [site]).stack(site)
        mine = caught.stack(site)[:, caught.places.row == row]
        torch.testing.assert_close(mine[..., : single.shape[-1]], single, **close(family))


def scale(hooked: wb.TorchModel, d_head: int) -> float:
    """What the product of a query and a key is multiplied by, as the papers give it."""
    config = hooked.anatomy.config
    if config.model_type == "opt":  # scales its queries before
        return 1.0
    if config.model_type == "granite":
        return float(config.attention_multiplier)
    return float(getattr(config, "query_pre_attn_scalar", d_head)) ** -0.5


def hidden(hooked: wb.TorchModel, layer: int, length: int) -> Tensor:
    """[queries, keys], True where a query may not see a key."""
    if not hooked.causal:
        return torch.zeros(length, length, dtype=torch.bool)
    config = hooked.anatomy.config
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * LAYERS
    reach = getattr(config, "sliding_window", None)
    back = torch.arange(length)[:, None] - torch.arange(length)
    seen = back >= 0
    if kinds[layer - 1] == "sliding_attention" and reach is not None:
        seen &= back < reach
    return ~seen


def pattern_of(hooked: wb.TorchModel, layer: int, q: Tensor, k: Tensor) -> Tensor:
    """[places, heads, keys] of one prompt, from its queries and keys alone."""
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale(hooked, q.shape[-1])
    cap = getattr(hooked.anatomy.config, "attn_logit_softcapping", None)
    scores = cap * torch.tanh(scores / cap) if cap else scores
    scores = scores.masked_fill(hidden(hooked, layer, len(q)), -torch.inf)
    if hooked.anatomy.config.model_type != "gpt_oss":
        return scores.softmax(-1).transpose(0, 1)
    sinks = hooked.anatomy.part(layer, "self_attn").sinks[:, None, None]
    mass = torch.cat([scores, sinks.expand(*scores.shape[:2], 1)], dim=-1)
    return mass.softmax(-1)[..., :-1].transpose(0, 1)


@torch.no_grad()
def check_product(hooked: wb.TorchModel, tolerance: dict[str, float]) -> None:
    caught = hooked.capture(LONG, SITES)
    for layer in range(1, LAYERS + 1):
        q, k, v, pattern, z = (caught[site, layer] for site in SITES)
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        torch.testing.assert_close(pattern, pattern_of(hooked, layer, q, k), **tolerance)
        torch.testing.assert_close(z, torch.einsum("qhk,khd->qhd", pattern, v), **tolerance)


@pytest.mark.parametrize("family", INSIDE)
def test_the_sites_are_one_product(family: str) -> None:
    check_product(model(family), close(family))


def grouped() -> wb.TorchModel:
    """Four heads on two keys and values, where a wrong order of the groups shows."""
    torch.manual_seed(0)
    settings = GATED | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    return wb.load(LlamaForCausalLM(LlamaConfig(**settings)).double().eval(), tokenizer())


def test_groups_of_heads_share_their_key_and_value() -> None:
    hooked = grouped()
    check_product(hooked, close("llama"))
    caught = hooked.capture("abc", SITES)
    assert caught["q", 1].shape == caught["z", 1].shape == (3, 4, 4)
    assert caught["k", 1].shape == caught["v", 1].shape == (3, 2, 4)
    assert caught["pattern", 1].shape == (3, 4, 3)


@pytest.mark.parametrize("family", EVERY)
def test_z_is_what_the_output_projection_reads(family: str) -> None:
    """By a hook of our own on a pass that asks for nothing inside attention."""
    hooked = model(family)
    ids = torch.tensor([hooked.encode(wb.Prompt(LONG)).ids])
    caught = hooked.capture(LONG, ["z"])
    for layer in range(1, LAYERS + 1):
        projection = hooked.anatomy.part(layer, hooked.anatomy.family.attn_z)
        seen: list[Tensor] = []
        handle = projection.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(args[0])
        )
        with torch.no_grad():
            hooked.hf(ids, use_cache=False)
        handle.remove()
        z = caught["z", layer]
        assert z.shape[1] == hooked.anatomy.config.num_attention_heads
        torch.testing.assert_close(z.flatten(-2), seen[0][0], **close(family))


@pytest.mark.parametrize("family", OWN_CODE)
@pytest.mark.parametrize("site", SITES[:-1])
def test_attention_in_code_of_its_own_is_refused(family: str, site: str) -> None:
    hooked = model(family)
    refused = f"{hooked.anatomy.config.model_type} has no {site}: it computes attention in its own"
    with pytest.raises(wb.UnsupportedError, match=refused):
        hooked.capture("abc", [site])
    with pytest.raises(wb.UnsupportedError, match=refused):
        hooked.intervene("abc", [wb.Edit.set((site, 1), torch.zeros(1))])
    with pytest.raises(wb.UnsupportedError, match=refused):
        hooked.grad("abc", lambda logits, _: logits.sum(), [site])


def test_a_tap_that_is_not_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family that has plain code in its file, and does not call it."""
    from transformers.models.gpt_neo import modeling_gpt_neo

    monkeypatch.setattr(modeling_gpt_neo, "eager_attention_forward", nn.Identity(), raising=False)
    with pytest.raises(wb.ModelError, match="GPTNeoAttention did not reach its product"):
        model("gpt_neo").capture("abc", ["pattern"])
    with pytest.raises(wb.ModelError, match="did not reach its product"):
        model("gpt_neo").intervene("abc", [wb.Edit.set(("v", 1), torch.zeros(2, 8))])
    with pytest.raises(wb.ModelError, match="did not reach its product"):
        model("gpt_neo").grad("abc", lambda logits, _: logits.sum(), ["q"])


@pytest.mark.parametrize(
    ("family", "site"), [pair for pair in having(SITES) if pair[0] in FAMILIES]
)
def test_restart_with_keys_and_values_of_earlier_columns(family: str, site: str) -> None:
    hooked = model(family)
    batch = hooked.batch(["abcdefgh", "ijklmnop"])
    full = hooked.capture(batch, ["resid_post", site])
    begin, start = 5, 1
    prefix = hooked.keys_values(batch).before(begin)
    resid = padded(batch, full["resid_post", start], full.places)[:, begin:]
    wanted = [(site, layer) for layer in range(start + 1, LAYERS + 1)]
    again = hooked.tail(batch, start, resid, wanted, slice(begin, None), prefix)
    later = full.places.position >= begin
    for where in wanted:
        torch.testing.assert_close(again[where], full[where][later], **close(family))


@pytest.mark.parametrize("family", CAUSAL)
def test_restart_of_a_batch_padded_on_the_left_with_a_prefix(family: str) -> None:
    hooked = model(family)
    batch = hooked.batch(["abcdefgh", "ijkl"], "left")
    full = hooked.capture(batch, ["resid_post", "k", "pattern"])
    begin = batch.ids.shape[1] - 2
    prefix = hooked.keys_values(batch).before(begin)
    resid = padded(batch, full["resid_post", 1], full.places)[:, begin:]
    again = hooked.tail(batch, 1, resid, [("k", 2), ("pattern", 2)], [-2, -1], prefix)
    later = full.places.column >= begin
    for where in (("k", 2), ("pattern", 2)):
        torch.testing.assert_close(again[where], full[where][later], **close(family))

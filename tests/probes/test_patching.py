"""Activation patching against plain hooks, against transformer-lens, and against what must hold."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import workbench as wb
from probes import Patch, PathPatch
from probes.patching.alignment import matched
from tests.models.bridges import bridge
from tests.probes import plain
from tests.tiny import LAYERS, hf_model, model, tokenizer

TEXT, OTHER = "ab cde", "ab xyz"
PROMPT = wb.Prompt(TEXT, target="x", foil="y", corrupted=OTHER)
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}  # float64
STORED = {"rtol": 1e-6, "atol": 1e-6}  # transformer-lens keeps its grids in float32
INSIDE = {"rtol": 0, "atol": 1e-5}  # families' plain attention has its softmax in float32
PLAIN = ("resid_post", "attn_out", "mlp_out", "z", "q", "k", "v")
FAMILIES = ["gpt2", "llama", "gpt_neox"]


def ids(family: str, text: str) -> torch.Tensor:
    return torch.tensor(model(family).encode(wb.Prompt(text)).ids)


def difference(logits: torch.Tensor) -> float:
    target, foil = (int(model("gpt2").tokens.ids(text)[0]) for text in "xy")
    return float(logits[-1, target] - logits[-1, foil])


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_cell_is_a_whole_run_with_one_value_put_in(family: str, direction: str) -> None:
    """Single heads and tokens, and all tokens together; one plain forward a cell."""
    hf, clean, corrupted = hf_model(family), ids(family, TEXT), ids(family, OTHER)
    base, source = (corrupted, clean) if direction == "denoising" else (clean, corrupted)
    places = [(name, layer) for name in PLAIN for layer in range(1, LAYERS + 1)]
    taken = plain.values(hf, source, places)

    def expected(name: str, layer: int, columns: list[int], head: int | None) -> float:
        change = plain.putting(taken[name, layer], columns, head)
        return difference(plain.run(hf, base, {(name, layer): change}))

    each = Patch(PLAIN, direction=direction)(model(family), PROMPT).data
    together = Patch(PLAIN, direction=direction, scope="together")(model(family), PROMPT).data
    width = len(clean)
    for (name, layer), value in taken.items():
        heads = range(value.shape[1]) if value.dim() == 3 else [None]
        for head in heads:
            at = {"layer": layer} | (
                {"site": name} if head is None else {"head_site": name, "head": head}
            )
            score = "score" if head is None else "head_score"
            near = INSIDE if name in "qkv" and family != "gpt2" else TOLERANCE
            found = each[score].sel(at).values
            one_by_one = [expected(name, layer, [column], head) for column in range(width)]
            assert_allclose(found, one_by_one, **near)
            all_at_once = expected(name, layer, list(range(width)), head)
            assert_allclose(together[score].sel(at).values, [all_at_once], **near)
    for name, text in (("clean", clean), ("corrupted", corrupted)):
        assert_allclose(each[name].values, difference(plain.run(hf, text, {})), **TOLERANCE)


@torch.no_grad()
def test_transformer_lens_own_grids_agree() -> None:
    """Its `patching` functions on the bridged model: heads by position and at all, k, v, pattern."""
    from transformer_lens import patching as peer

    lens = bridge("gpt2").bridge
    clean, corrupted = ids("gpt2", TEXT)[None], ids("gpt2", OTHER)[None]
    _, cache = lens.run_with_cache(clean)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return torch.tensor(difference(logits[0]), dtype=torch.float64)

    sites = ("resid_post", "resid_mid", "attn_out", "mlp_out", "z", "q", "k", "v", "pattern")
    each = Patch(sites, layers=range(LAYERS + 1))(model("gpt2"), PROMPT).data
    whole = {
        "attn_out": (peer.get_act_patch_attn_out, range(1, LAYERS + 1)),
        "mlp_out": (peer.get_act_patch_mlp_out, range(1, LAYERS + 1)),
        "resid_mid": (peer.get_act_patch_resid_mid, range(1, LAYERS + 1)),
        "resid_post": (peer.get_act_patch_resid_pre, range(LAYERS)),
    }
    for site, (theirs, layers) in whole.items():
        found = each.score.sel(site=site, layer=list(layers)).transpose("layer", "place")
        assert_allclose(found, theirs(lens, corrupted, cache, metric), **STORED)
    by_head = {
        "z": peer.get_act_patch_attn_head_out_by_pos,
        "q": peer.get_act_patch_attn_head_q_by_pos,
        "k": peer.get_act_patch_attn_head_k_by_pos,
        "v": peer.get_act_patch_attn_head_v_by_pos,
        "pattern": peer.get_act_patch_attn_head_pattern_by_pos,
    }
    for site, theirs in by_head.items():
        found = each.head_score.sel(head_site=site, layer=slice(1, None))
        expected = theirs(lens, corrupted, cache, metric)
        order = ("head", "place") if site == "pattern" else ("place", "head")
        assert_allclose(found.transpose("layer", *order), expected, **STORED)
    together = Patch("z", scope="together")(model("gpt2"), PROMPT).data
    expected = peer.get_act_patch_attn_head_out_all_pos(lens, corrupted, cache, metric)
    assert_allclose(together.head_score[0, 0], expected, **STORED)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_all_of_a_run_put_in_is_that_run(direction: str) -> None:
    """States of every token at any layer, layer 0 among them; also behind a target of two tokens."""
    prompts = [PROMPT, wb.Prompt(TEXT, target="xy", corrupted=OTHER)]
    settings = {"layers": range(LAYERS + 1), "direction": direction, "metric": "logprob"}
    data = Patch("resid_post", scope="together", **settings)(model("gpt2"), prompts).data
    other, share = ("clean", 1) if direction == "denoising" else ("corrupted", 0)
    expected = np.repeat(data[other].values[:, None], LAYERS + 1, 1)
    assert_allclose(data.score[:, 0], expected, **TOLERANCE)
    assert_allclose(data.normalised, share, **TOLERANCE)
    assert data.tokens.values.tolist() == [6, 7]
    each = Patch("resid_post", **settings)(model("gpt2"), PROMPT).data
    before = each.isel(place=slice(3))  # the same tokens in both texts: exactly nothing changes
    assert not before.effect.any()
    assert each.effect.isel(place=-1, layer=-1).item() != 0


def test_roles_align_texts_of_other_lengths() -> None:
    """Against plain runs of both texts, each on its own; one token of the prompt has no counterpart."""
    prompt = wb.Prompt(
        "xx abc yy z", subject="abc", target="x", foil="y", corrupted="xx abcdef yy z"
    )
    clean, corrupted = ids("gpt2", prompt.text), ids("gpt2", prompt.corrupted or "")
    pairs = {0: 0, 1: 1, 2: 2, 3: 3, 5: 8, 6: 9, 7: 10, 8: 11, 9: 12, 10: 13}
    for direction in ("denoising", "noising"):
        data = Patch("attn_out,z", align="role", direction=direction)(model("gpt2"), prompt).data
        source, base = (clean, corrupted) if direction == "denoising" else (corrupted, clean)
        taken = plain.values(hf_model("gpt2"), source, [("attn_out", 2), ("z", 2)])
        for position in range(len(clean)):
            one = data.isel(place=position).sel(layer=2)
            if position not in pairs:
                assert one.score.isnull().all()
                assert one.head_score.isnull().all()
                continue
            columns = (pairs[position], position)
            to, of = columns if direction == "denoising" else reversed(columns)
            for name, head, found in (
                ("attn_out", None, one.score),
                ("z", 1, one.head_score[0, 1]),
            ):
                change = plain.putting(taken[name, 2], [to], head, [of])
                expected = difference(plain.run(hf_model("gpt2"), base, {(name, 2): change}))
                assert_allclose(found.item(), expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (((1, 1), 3), ((1, 2), 4), {0: 0, 1: 2, 2: 3}),
        (((1, 2), 4), ((1, 1), 3), {0: 0, 2: 1, 3: 2}),
        (((2, 3), 5), ((1, 2), 5), {0: 0, 2: 1, 3: 2, 4: 4}),
        (((0, 2), 3), ((0, 2), 3), {0: 0, 1: 1, 2: 2}),
    ],
)
def test_which_tokens_play_the_same_role(first, second, expected) -> None:  # type: ignore[no-untyped-def]
    assert matched(*first, *second) == expected


def test_a_batch_of_unlike_prompts_gives_what_each_gives_alone() -> None:
    prompts = [
        wb.Prompt("ab cde", id="a", target="x", corrupted="ab xyz", subject="cde"),
        wb.Prompt("f gh", id="b", target="xyz", corrupted="f xy", subject="f"),
        wb.Prompt("ab cdf", id="c", target="x", corrupted="ah xyz", subject="ab"),
    ]
    for kind in (Patch(scope="together", positions="subject"), Patch("z,v", layers=[1, 3])):
        whole = kind(model("llama"), prompts, padding="left").data
        for prompt in prompts:
            alone, part = (
                kind(model("llama"), prompt).data,
                whole.sel(place=whole.prompt == prompt.id),
            )
            for name in set(alone.data_vars) - {"vocabulary", "block_tokens"}:
                assert_allclose(part[name], alone[name], rtol=1e-6, atol=1e-6)  # float32 softmax


@pytest.mark.parametrize("engine", ["transformer_lens", "nnsight"])
def test_engines_agree(engine: str) -> None:
    other = wb.load(hf_model("gpt2"), tokenizer(), engine=engine)
    sites = ("resid_post", "z", *(() if engine == "nnsight" else ("v",)))
    own = Patch(sites)(model("gpt2"), PROMPT).data
    found = Patch(sites)(other, PROMPT).data
    for name in ("score", "head_score", "normalised"):
        assert_allclose(found[name], own[name], **TOLERANCE)


@pytest.mark.parametrize(
    ("kind", "prompt", "message"),
    [
        (Patch(), wb.Prompt(TEXT, target="x"), "no corrupted text: give one"),
        (Patch(), wb.Prompt(TEXT, target="x", corrupted="abc"), "has 3 tokens and its prompt 6"),
        (Patch(), wb.Prompt(TEXT, target="x", corrupted=TEXT), "has the prompt's own tokens"),
        (Patch(), wb.Prompt(TEXT, corrupted=OTHER), "no target"),
        (Patch(align="role"), PROMPT, "has no subject"),
        (
            Patch(align="role"),
            wb.Prompt(TEXT, target="x", subject="cde", corrupted="xy z"),
            "name its own subject in the prompt's field 'corrupted_subject'",
        ),
        (Patch(layers=7), PROMPT, "layer 7: expected whole numbers, 0..3"),
        (Patch("z", layers=0), PROMPT, "the embedding, has no z: expected one of 1..3"),
        (Patch(positions=[]), PROMPT, "are none of the 6 of prompt"),
    ],
)
def test_what_cannot_be_patched_is_refused(kind: Patch, prompt: wb.Prompt, message: str) -> None:
    with pytest.raises(wb.WorkbenchError, match=message):
        kind(model("gpt2"), prompt)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sites": "z,z"}, "sites is z, z|sites is 'z', 'z': expected some of resid_post"),
        ({"sites": "resid"}, "sites is 'resid': expected some of"),
        ({"sites": "z,pattern", "align": "role"}, "whose values belong to a position"),
        ({"scope": "one"}, "scope is 'one': expected one of each, together"),
        ({"direction": "both"}, "direction is 'both'"),
    ],
)
def test_settings_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        Patch(**settings)  # type: ignore[arg-type]


def test_a_given_subject_of_the_other_text() -> None:
    """The two texts need not be one template: the field names the other subject."""
    fields = {"corrupted_subject": "xyz"}
    prompt = wb.Prompt("a bc d", subject="bc", target="x", corrupted="e xyz f", extra=fields)
    data = Patch("resid_post", align="role")(model("gpt2"), prompt).data
    assert data.score[:, 0, 0].notnull().values.tolist() == [True] * 6


@pytest.mark.parametrize(
    "kind",
    [
        Patch(),
        Patch("z,v", direction="noising"),
        Patch(scope="together", align="role"),
        Patch(align="role", direction="noising"),
        PathPatch(),
        PathPatch(mlps="frozen", receivers="q2.1,mlp3"),
    ],
)
def test_plans_say_how_many_tokens_pass_through_a_block(kind: Patch | PathPatch) -> None:
    other = "ab xyz" if isinstance(kind, PathPatch) or kind.align == "position" else "ab xyzw"
    prompts = [
        wb.Prompt("ab cde", target="x", corrupted=other, subject="cde"),
        wb.Prompt("ab cdf", target="wxy", corrupted=other, subject="cdf"),
    ]
    hooked = model("gpt2")
    encoded = [hooked.encode(prompt, long_targets=True) for prompt in prompts]
    done = [int(kind(hooked, prompt).data.block_tokens[0]) for prompt in prompts]
    assert kind.block_tokens(hooked, encoded) == sum(done)

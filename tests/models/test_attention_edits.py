"""Edits and gradients inside attention, and that a pass leaves attention as it was."""

import threading
from typing import Any

import pytest
import torch

import workbench as wb
from tests.models.test_attention import INSIDE, SITES, grouped
from tests.models.test_engine import close, padded, snapshot
from tests.models.test_gradients import TARGETS, loss
from tests.tiny import LAYERS, TEXTS, having, hf_model, model, tokenizer

LOGITS = ("logits", LAYERS)


@pytest.mark.parametrize(("family", "site"), having(SITES))
@pytest.mark.parametrize("padding", ["left", "right"])
def test_edit_to_the_same_value_changes_nothing(family: str, site: str, padding: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS, padding)
    clean = hooked.capture(batch, [(site, 2), "logits"])
    same = hooked.intervene(batch, [wb.Edit.set((site, 2), clean[site, 2])])
    torch.testing.assert_close(same[LOGITS], clean[LOGITS], **close(family))
    other = hooked.intervene(batch, [wb.Edit.set((site, 2), torch.ones_like(clean[site, 2]))])
    assert (other[LOGITS] - clean[LOGITS]).abs().max() > 0.01


@pytest.mark.parametrize("family", INSIDE)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_all_attention_on_one_position_gives_its_value(family: str, padding: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS[:3], padding)
    one_hot = torch.zeros(int(batch.mask.sum(1).max()), dtype=torch.float64)
    one_hot[1] = 1
    edit = wb.Edit(("pattern", 2), lambda old, _: one_hot.expand_as(old), "last")
    found = hooked.intervene(batch, [edit], [("pattern", 2), ("v", 2), ("z", 2)])
    last = batch.places("last").column[found.places.row] == found.places.column
    assert torch.equal(found["pattern", 2][last], one_hot.expand_as(found["pattern", 2][last]))
    v = found["v", 2][found.places.position == 1]
    expected = v.repeat_interleave(found["z", 2].shape[1] // v.shape[1], dim=1)
    torch.testing.assert_close(found["z", 2][last], expected, **close(family))
    clean = hooked.capture(batch, [("pattern", 2), ("z", 2)])
    for site in ("pattern", "z"):
        torch.testing.assert_close(found[site, 2][~last], clean[site, 2][~last], **close(family))


def test_an_edited_value_reaches_the_heads_of_its_group_alone() -> None:
    hooked = grouped()
    clean = hooked.capture("abc", [("pattern", 2), ("z", 2)])

    def change(v: torch.Tensor, _: wb.Places) -> torch.Tensor:
        return v + torch.tensor([0.0, 1.0])[:, None]

    edited = hooked.intervene("abc", [wb.Edit(("v", 2), change)], [("z", 2)])
    moved = edited["z", 2] - clean["z", 2]  # each row of the pattern sums to 1
    expected = torch.tensor([0.0, 0.0, 1.0, 1.0]).double()[:, None].expand_as(moved)
    torch.testing.assert_close(moved, expected, **close("llama"))


def test_an_edited_pattern_weighs_the_value_of_its_group() -> None:
    hooked = grouped()
    clean = hooked.capture("abc", [("pattern", 2), ("z", 2)])
    same = hooked.intervene("abc", [wb.Edit.set(("pattern", 2), clean["pattern", 2])], [("z", 2)])
    torch.testing.assert_close(same["z", 2], clean["z", 2], **close("llama"))


def test_an_edit_of_v_is_what_the_pattern_weighs() -> None:
    """The edit of one position moves each later z by the weight that it gives to the position."""
    hooked = model("gpt2")
    edit = wb.Edit.add(("v", 2), torch.ones(2, 8), positions=1)
    clean = hooked.capture("abcdef", [("pattern", 2), ("z", 2)])
    edited = hooked.intervene("abcdef", [edit], [("z", 2)])
    weight = clean["pattern", 2][..., 1:2].expand_as(clean["z", 2])
    torch.testing.assert_close(edited["z", 2] - clean["z", 2], weight, **close("gpt2"))


@pytest.mark.parametrize("site", ["q", "k", "v"])
def test_edits_behind_a_prefix_are_those_of_the_whole_pass(site: str) -> None:
    hooked = model("llama")
    batch = hooked.batch(["abcdefgh", "ijklmnop"])
    begin = 5
    full = hooked.capture(batch, ["resid_post"])
    prefix = hooked.keys_values(batch).before(begin)
    resid = padded(batch, full["resid_post", 1], full.places)[:, begin:]
    edit = wb.Edit.add((site, 2), torch.ones(8), positions=6)
    read = wb.Read("logits", slice(begin, None))
    (whole,) = hooked.read(batch, [read], edits=[edit])
    (part,) = hooked.read(batch, [read], edits=[edit], start=(1, resid), prefix=prefix)
    torch.testing.assert_close(part[LOGITS], whole[LOGITS], **close("llama"))


def test_an_edit_above_what_is_read_is_not_run() -> None:
    hooked = model("gpt2")
    edit = wb.Edit.set(("pattern", 3), torch.zeros(3))
    found = hooked.intervene("abc", [edit], [("resid_post", 1)])
    assert torch.equal(found["resid_post", 1], hooked.capture("abc", "resid_post")["resid_post", 1])


def test_an_edit_of_another_shape_is_refused() -> None:
    edit = wb.Edit.set(("z", 1), torch.zeros(16))
    with pytest.raises(wb.SettingError, match=r"edit of z, layer 1 gives shape \(16,\): expected"):
        model("gpt2").intervene("abc", [edit])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_oss"])
@pytest.mark.parametrize("site", SITES)
def test_gradients_are_the_slopes_of_edits(family: str, site: str) -> None:
    hooked, where = model(family), (site, 2)
    gradient = hooked.grad(TEXTS[0], loss, [where])
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(gradient[where].shape, generator=generator).double()
    direction /= direction.norm()
    step = 1e-6 if family == "gpt2" else 1e-3  # float32 softmaxes need the larger one

    def at(distance: float) -> float:
        edit = wb.Edit.add(where, distance * direction)
        found = hooked.intervene(TEXTS[0], [edit], positions="last")
        return float(loss(found[LOGITS], found.places))

    slope = (at(step) - at(-step)) / (2 * step)
    expected = float((gradient[where] * direction).sum())
    # As in test_gradients: the step squared times a third derivative, and rounding over the step.
    assert slope == pytest.approx(expected, rel=1e-3, abs=1e-8 if family == "gpt2" else 1e-3)
    assert abs(expected) > 1e-3


@pytest.mark.parametrize(("family", "site"), having(SITES))
def test_a_batch_keeps_each_prompts_own_gradient(family: str, site: str) -> None:
    hooked = model(family)
    batch = hooked.grad(hooked.batch(TEXTS, "left"), loss, [site])
    for row, text in enumerate(TEXTS):

        def own(logits: torch.Tensor, _: wb.Places, row: int = row) -> torch.Tensor:
            return -logits.log_softmax(-1)[0, TARGETS[row]]

        single = hooked.grad(text, own, [site]).stack(site)
        mine = batch.stack(site)[:, batch.places.row == row]
        torch.testing.assert_close(mine[..., : single.shape[-1]], single, **close(family))
        assert not mine[..., single.shape[-1] :].any()


def implementations(hf: Any) -> list[tuple[int, str]]:
    """Each module's config, and how it says attention is computed."""
    configs = [module.config for module in hf.modules() if hasattr(module, "config")]
    return [(id(config), config._attn_implementation) for config in configs]


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gemma3"])
def test_attention_is_left_as_it_was(family: str) -> None:
    hf = hf_model(family)
    hooked = wb.load(hf, tokenizer())
    before = snapshot(hf), implementations(hf)
    clean = hooked.capture(TEXTS, ["logits"])
    hooked.capture(TEXTS, SITES)
    hooked.grad(TEXTS[0], lambda logits, _: logits.sum(), SITES)
    with pytest.raises(ZeroDivisionError):
        hooked.intervene(TEXTS[0], [wb.Edit(("pattern", 2), lambda *_: 1 / 0)])
    with pytest.raises(ZeroDivisionError):
        hooked.grad(TEXTS[0], lambda *_: 1 / 0, ["q"])
    assert (snapshot(hf), implementations(hf)) == before
    assert torch.equal(hooked.capture(TEXTS, ["logits"])[LOGITS], clean[LOGITS])


def test_another_model_of_the_same_config_does_not_notice() -> None:
    hf = hf_model("llama")
    other = wb.load(type(hf)(hf.config).double().eval(), tokenizer())
    hooked = wb.load(hf, tokenizer())
    expected = other.capture(TEXTS, ["logits"])[LOGITS]
    found: list[torch.Tensor] = []

    def meanwhile(old: torch.Tensor, _: wb.Places) -> torch.Tensor:
        found.append(other.capture(TEXTS, ["logits"])[LOGITS])
        return old

    hooked.intervene(TEXTS, [wb.Edit(("pattern", 1), meanwhile)])
    assert torch.equal(found[0], expected)


def test_threads_do_not_see_each_other() -> None:
    hooked = model("llama")
    expected = {site: hooked.capture(TEXTS, [site]).stack(site) for site in ("logits", "pattern")}
    equal: list[bool] = []

    def work(site: str) -> None:
        for _ in range(20):
            found = hooked.capture(TEXTS, [site]).stack(site)
            equal.append(torch.equal(found, expected[site]))

    threads = [threading.Thread(target=work, args=(site,)) for site in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(equal) == 40
    assert all(equal)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_no_edit_of_a_pattern_attends_to_padding(family: str, padding: str) -> None:
    hooked = model(family)
    even = wb.Edit(("pattern", 2), lambda old, _: torch.full_like(old, 0.1))
    together = hooked.batch(TEXTS, padding)
    found = hooked.intervene(together, [even], ["logits"], "last")[LOGITS]
    for row, text in enumerate(TEXTS):
        alone = hooked.intervene(text, [even], ["logits"], "last")[LOGITS]
        torch.testing.assert_close(found[row], alone[0], **close(family))

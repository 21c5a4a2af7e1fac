"""Capture, intervention and restart against Hugging Face itself, in float64."""

import threading

import pytest
import torch

import workbench as wb
from tests.tiny import (
    DENSE,
    EVERY,
    FAMILIES,
    LAYERS,
    PARALLEL,
    ROUTED,
    SEQUENTIAL,
    TEXTS,
    has,
    having,
    hf_model,
    model,
    tokenizer,
    tokenizer_of,
)

# Numbers of size ~10, sums of some hundred terms, three blocks, in two orders of rounding. Norms and
# rotary angles of most families are float32 in Hugging Face's code whatever the weights are.
CLOSE64 = {"rtol": 0, "atol": 1e4 * torch.finfo(torch.float64).eps}
CLOSE32 = {"rtol": 0, "atol": 1e2 * torch.finfo(torch.float32).eps}


def close(family: str) -> dict[str, float]:
    """The error that rounding alone explains."""
    return CLOSE64 if family == "gpt2" else CLOSE32


TAPPED = ["resid_pre", "resid_post", "attn_out", "mlp_out", "mlp_act", "final_norm", "logits"]


def tapped(family: str) -> list[str]:
    """The sites of `TAPPED` that the family has."""
    return [site for site in TAPPED if has(family, site)]


def own_logits(hooked: wb.TorchModel, text: str) -> torch.Tensor:
    """Hugging Face's logits of one prompt, without any hook, mask or padding."""
    ids = torch.tensor([hooked.encode(wb.Prompt(text)).ids])
    with torch.no_grad():
        return hooked.hf(ids, use_cache=False).logits[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_equal_hugging_face(family: str) -> None:
    hooked = model(family)
    ids = torch.tensor([hooked.encode(wb.Prompt(TEXTS[0])).ids])
    with torch.no_grad():
        expected = hooked.hf(ids, use_cache=False, output_hidden_states=True).hidden_states
    caught = hooked.capture(TEXTS[0], ["embed", "resid_post", "final_norm"])
    for layer in range(LAYERS):
        torch.testing.assert_close(caught["resid_post", layer], expected[layer][0], **close(family))
    torch.testing.assert_close(caught["embed", 0], expected[0][0], **close(family))
    final = caught["final_norm", LAYERS]
    if family == "opt_projected":  # Hugging Face's last state is the projected one
        final = hooked.hf.model.decoder.project_out(final).detach()
    torch.testing.assert_close(final, expected[-1][0], **close(family))


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_batch_of_unequal_lengths_equals_single_prompts(family: str, padding: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS, padding)
    caught = hooked.capture(batch, tapped(family))
    for row, text in enumerate(TEXTS):
        mine = caught.places.row == row
        single = hooked.capture(text, tapped(family))
        for site, values in caught.values.items():
            torch.testing.assert_close(values[mine], single.values[site], **close(family))
        torch.testing.assert_close(
            caught["logits", LAYERS][mine], own_logits(hooked, text), **close(family)
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_identities_of_the_residual_stream(family: str) -> None:
    caught = model(family).capture(model(family).batch(TEXTS), tapped(family))
    pre, post, attn, mlp = (
        caught.stack(s) for s in ["resid_pre", "resid_post", "attn_out", "mlp_out"]
    )
    torch.testing.assert_close(pre + attn + mlp, post[1:], **close(family))
    torch.testing.assert_close(post[:-1], pre, rtol=0, atol=0)


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_resid_mid_lies_between_the_branches(family: str) -> None:
    caught = model(family).capture(TEXTS[0], ["resid_pre", "resid_mid", "attn_out"])
    mid = caught.stack("resid_pre") + caught.stack("attn_out")
    torch.testing.assert_close(caught.stack("resid_mid"), mid, **close(family))


@pytest.mark.parametrize("family", DENSE)
def test_mlp_act_is_what_the_down_projection_reads(family: str) -> None:
    hooked = model(family)
    caught = hooked.capture(TEXTS[0], ["mlp_act", "mlp_out"])
    for layer in range(1, LAYERS + 1):
        block, parts = hooked.anatomy.block(layer), hooked.anatomy.family
        with torch.no_grad():
            out = block.get_submodule(parts.mlp_act)(caught["mlp_act", layer])
            if parts.mlp_out not in (parts.mlp, parts.mlp_act):
                out = block.get_submodule(parts.mlp_out)(out)
            if family == "granite":
                out = out * hooked.hf.config.residual_multiplier
        torch.testing.assert_close(out, caught["mlp_out", layer], **close(family))


@pytest.mark.parametrize("family", PARALLEL)
def test_parallel_blocks_have_no_resid_mid(family: str) -> None:
    hooked = model(family)
    with pytest.raises(wb.UnsupportedError, match="no resid_mid"):
        hooked.capture("abc", ["resid_mid"])
    with pytest.raises(wb.UnsupportedError, match="no resid_mid"):
        hooked.intervene("abc", [wb.Edit.set(("resid_mid", 1), torch.zeros(16))])


@pytest.mark.parametrize("family", ROUTED)
def test_routed_mlps_have_no_activations_and_no_maps(family: str) -> None:
    hooked = model(family)
    with pytest.raises(wb.UnsupportedError, match=f"{family} has no mlp_act: each token goes to"):
        hooked.capture("abc", ["mlp_act"])
    with pytest.raises(wb.UnsupportedError, match=f"{family} has no linear map 'up': each token"):
        hooked.factors("abc", lambda logits, _: logits.sum(), [("up", 1)])


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_restart_from_every_layer_is_exact(family: str, padding: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS, padding)
    full = hooked.capture(batch, ["resid_post", "logits"])
    for layer in range(LAYERS + 1):
        resid = padded(batch, full["resid_post", layer], full.places)
        again = hooked.tail(batch, layer, resid)
        assert torch.equal(again["logits", LAYERS], full["logits", LAYERS])


@pytest.mark.parametrize("family", EVERY)
def test_a_restart_is_read_and_edited_from_its_own_states(family: str) -> None:
    """States that the model never had: every site at and above the restart must show them."""
    hooked = model(family)
    batch = hooked.batch(TEXTS[:2])
    states = torch.randn(*batch.ids.shape, 16, generator=torch.Generator().manual_seed(3)).double()
    bump = torch.ones(16)
    for layer in range(LAYERS):
        given = batch.places().gather(states)
        found = hooked.tail(batch, layer, states, [("resid_post", layer), ("resid_pre", layer + 1)])
        assert torch.equal(found["resid_post", layer], given)
        assert torch.equal(found["resid_pre", layer + 1], given)
        shifted = hooked.tail(batch, layer, states + 1)["logits", LAYERS]
        for site in (("resid_pre", layer + 1), ("resid_post", layer)):
            edit = wb.Edit.add(site, bump)
            edited = hooked.intervene(batch, [edit], start=(layer, states))["logits", LAYERS]
            torch.testing.assert_close(edited, shifted, **close(family))


@pytest.mark.parametrize("layer", [-1, LAYERS + 1])
def test_a_restart_from_no_layer_is_refused(layer: int) -> None:
    states = torch.zeros(1, 3, 16, dtype=torch.float64)
    with pytest.raises(wb.SettingError, match=r"to restart from: expected 0\.\.3"):
        model("gpt2").tail("abc", layer, states)


def test_states_of_another_shape_are_refused() -> None:
    with pytest.raises(wb.SettingError, match=r"expected \(1, 3, 16\), padded as the batch is"):
        model("gpt2").tail("abc", 1, torch.zeros(1, 2, 16))


def test_an_edit_of_another_shape_is_refused() -> None:
    edit = wb.Edit.set(("mlp_out", 1), torch.zeros(15))
    with pytest.raises(wb.SettingError, match=r"edit of mlp_out, layer 1 gives shape \(15,\)"):
        model("gpt2").intervene("abc", [edit])


def test_a_model_in_training_mode_is_refused() -> None:
    hf = hf_model("gpt2")
    hooked = wb.load(hf, tokenizer())
    hf.train()
    for call in (hooked.capture, lambda p, s: hooked.grad(p, lambda z, _: z.sum(), s)):
        with pytest.raises(wb.ModelError, match="training mode"):
            call("abc", ["resid_post"])
    hf.eval()
    hooked.capture("abc", ["resid_post"])


def test_two_wrappers_of_one_model_share_its_lock() -> None:
    hf = hf_model("gpt2")
    assert wb.load(hf, tokenizer()).lock is wb.load(hf, tokenizer()).lock
    assert wb.load(hf, tokenizer()).lock is not model("gpt2").lock


@pytest.mark.parametrize("family", FAMILIES)
def test_restart_of_the_last_columns_with_keys_and_values(family: str) -> None:
    hooked = model(family)
    batch = hooked.batch(["abcdefgh", "ijklmnop"])
    full = hooked.capture(batch, ["resid_post", "logits"])
    begin = 5
    prefix = hooked.keys_values(batch).before(begin)
    for layer in range(LAYERS + 1):
        resid = padded(batch, full["resid_post", layer], full.places)[:, begin:]
        again = hooked.tail(batch, layer, resid, positions=slice(begin, None), prefix=prefix)
        assert prefix.width == begin
        expected = full["logits", LAYERS][full.places.position >= begin]
        torch.testing.assert_close(again["logits", LAYERS], expected, **close(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_one_block_and_its_branches(family: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS[:2])
    parallel = hooked.anatomy.parallel
    sites = ["resid_pre", "resid_post", "attn_out", "mlp_out"] + ([] if parallel else ["resid_mid"])
    full = hooked.capture(batch, sites)
    for layer in range(1, LAYERS + 1):
        inputs = padded(batch, full["resid_pre", layer], full.places)
        mid = inputs if parallel else padded(batch, full["resid_mid", layer], full.places)
        for part, states, site in [
            ("block", inputs, "resid_post"),
            ("attention", inputs, "attn_out"),
            ("mlp", mid, "mlp_out"),
        ]:
            out = full.places.gather(hooked.block(batch, layer, states, part))
            torch.testing.assert_close(out, full[site, layer], **close(family))


EDITABLE = ["embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_act"]


@pytest.mark.parametrize(("family", "site"), having([*EDITABLE, "final_norm"]))
def test_edit_to_the_same_value_changes_nothing(family: str, site: str) -> None:
    hooked = model(family)
    batch = hooked.batch(TEXTS)
    layer = {"embed": 0, "final_norm": LAYERS}.get(site, 2)
    clean = hooked.capture(batch, [(site, layer), "logits"])
    same = hooked.intervene(batch, [wb.Edit.set((site, layer), clean[site, layer])])
    torch.testing.assert_close(same["logits", LAYERS], clean["logits", LAYERS], **close(family))
    other = hooked.intervene(
        batch, [wb.Edit.set((site, layer), torch.ones_like(clean[site, layer]))]
    )
    assert (other["logits", LAYERS] - clean["logits", LAYERS]).abs().max() > 0.01


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_resid_mid_edit_moves_the_skip_connection_too(family: str) -> None:
    """Set resid_mid at every place: what comes after the block is that value plus its own MLP."""
    hooked = model(family)
    batch = hooked.batch(TEXTS)
    value = torch.linspace(-1, 1, 16, dtype=torch.float64)
    edited = hooked.intervene(
        batch, [wb.Edit.set(("resid_mid", 2), value)], ["resid_mid", "resid_post", "mlp_out"]
    )
    torch.testing.assert_close(
        edited["resid_mid", 2], value.expand_as(edited["resid_mid", 2]), **close(family)
    )
    after = value + edited["mlp_out", 2]
    torch.testing.assert_close(edited["resid_post", 2], after, **close(family))


def test_edits_of_one_block_build_on_each_other() -> None:
    """resid_mid + 1 on top of resid_pre + 1, in whatever order they are given."""
    hooked = model("gpt2")
    one = torch.ones(16)
    edits = [wb.Edit.add(("resid_mid", 2), one), wb.Edit.add(("resid_pre", 2), one)]
    expected = hooked.intervene("abc", edits[1:], ["resid_mid"])["resid_mid", 2] + 1
    for order in (edits, edits[::-1]):
        found = hooked.intervene("abc", order, ["resid_mid"])["resid_mid", 2]
        torch.testing.assert_close(found, expected, **CLOSE64)


def test_edit_acts_at_its_positions_only() -> None:
    hooked = model("llama")
    edit = wb.Edit.add(("resid_post", 1), torch.ones(16), positions="last")
    batch = hooked.batch(TEXTS, "left")
    clean, edited = (
        hooked.capture(batch, ["resid_post"]),
        hooked.intervene(batch, [edit], ["resid_post"]),
    )
    moved = (edited["resid_post", 1] - clean["resid_post", 1]).abs().amax(-1)
    lengths = torch.tensor([len(p) for p in batch.prompts])
    last = clean.places.position == lengths[clean.places.row] - 1
    torch.testing.assert_close(moved, last.double(), **CLOSE32)


@pytest.mark.parametrize("family", EVERY)
def test_nothing_is_left_behind(family: str) -> None:
    fresh = hf_model(family)
    hooked = wb.load(fresh, tokenizer_of(family))
    before = snapshot(fresh)
    hooked.capture(TEXTS[0], tapped(family))
    hooked.grad(TEXTS[0], lambda logits, _: logits.sum(), ["resid_post"])
    hooked.readout(torch.zeros(1, 16, dtype=torch.float64))
    with pytest.raises(ZeroDivisionError):
        hooked.intervene(TEXTS[0], [wb.Edit(("resid_post", 2), lambda *_: 1 / 0)])
    with pytest.raises(ZeroDivisionError):
        hooked.grad(TEXTS[0], lambda *_: 1 / 0, ["resid_post"])
    assert snapshot(fresh) == before


def snapshot(hf: torch.nn.Module) -> list[object]:
    """Everything a hook, a bypass or a gradient could leave behind."""
    modules = [
        (
            name,
            len(m._forward_hooks),
            len(m._forward_pre_hooks),
            "forward" in m.__dict__,
            m.training,
        )
        for name, m in hf.named_modules()
    ]
    return [*modules, *[(n, p.requires_grad, p.grad is None) for n, p in hf.named_parameters()]]


def test_a_wrapped_forward_is_put_back() -> None:
    """Libraries that place modules on devices wrap `forward` on the instance."""
    fresh = hf_model("gpt2")
    hooked = wb.load(fresh, tokenizer())
    block = hooked.anatomy.block(2)
    wrapped = block.forward
    block.forward = wrapped
    hooked.readout(torch.zeros(1, 16, dtype=torch.float64))
    assert block.__dict__["forward"] is wrapped


def test_threads_do_not_see_each_other() -> None:
    hooked = model("gpt2")
    zero = wb.Edit.set(("mlp_out", 1), torch.zeros(16))
    clean, edited = hooked.capture(TEXTS, ["logits"]), hooked.intervene(TEXTS, [zero])
    wrong: list[str] = []

    def work(name: str) -> None:
        for _ in range(500):
            found = (
                hooked.capture(TEXTS, ["logits"])
                if name == "clean"
                else hooked.intervene(TEXTS, [zero])
            )
            expected = clean if name == "clean" else edited
            if not torch.equal(found["logits", LAYERS], expected["logits", LAYERS]):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ["clean", "edited"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_passes_the_load_time_checks(family: str, dtype: torch.dtype) -> None:
    hooked = model(family, dtype)
    assert hooked.dtype == dtype
    assert not hooked.refused


def padded(batch: wb.Batch, values: torch.Tensor, places: wb.Places) -> torch.Tensor:
    """[N, d] -> [rows, width, d], with garbage on the padding."""
    empty = torch.full((*batch.ids.shape, values.shape[-1]), 7.0, dtype=values.dtype)
    return places.scatter(empty, values)


def test_positions_ascend_however_they_are_written() -> None:
    hooked = model("gpt2")
    for spec in (slice(None, None, -1), slice(-1, 1, -2), [5, 0, 3]):
        assert hooked.batch("a b c d").places(spec).position.diff().gt(0).all()

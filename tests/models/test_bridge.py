"""The transformer-lens engine against torch hooks on the same weights, in float64."""

import pytest
import torch

import workbench as wb
from tests.models.bridges import BRIDGED, INNER, READ_ONLY, assert_equal, bridge, gives, shared
from tests.models.test_engine import close, padded
from tests.models.test_gradients import loss
from tests.tiny import DENSE, LAYERS, TEXTS, has, model

SITES = ["embed", "resid_post", *INNER, "q", "k", "v", "pattern", "final_norm", "logits"]
DECODERS = [family for family in BRIDGED if family != "bert"]


@pytest.mark.parametrize("family", BRIDGED)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_every_site(family: str, padding: str) -> None:
    sites = shared(family, SITES)
    found, expected = (
        m.capture(m.batch(TEXTS, padding), sites) for m in (bridge(family), model(family))
    )
    assert_equal(family, found, expected)


@pytest.mark.parametrize("family", BRIDGED)
def test_what_it_does_not_read_is_refused_by_name(family: str) -> None:
    for site in SITES:
        if gives(family, site):
            bridge(family).capture("ab", [site])
            continue
        with pytest.raises(wb.WorkbenchError, match=rf"\b{site}\b"):
            bridge(family).capture("ab", [site])


@pytest.mark.parametrize("family", ["gpt_neo", "gptj", "bloom", "falcon"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_pattern_and_v_of_families_whose_own_code_hides_them(family: str, padding: str) -> None:
    """Their product, prompt by prompt, is z."""
    hooked = bridge(family)
    found = hooked.capture(hooked.batch(TEXTS, padding), ["pattern", "v", "z"])
    for row in range(len(TEXTS)):
        mine = found.places.row == row
        for layer in range(1, LAYERS + 1):
            pattern, v = found["pattern", layer][mine], found["v", layer][mine]
            torch.testing.assert_close(
                pattern.sum(-1), torch.ones(pattern.shape[:2]).double(), **close(family)
            )
            v = v.repeat_interleave(pattern.shape[1] // v.shape[1], dim=1)
            z = torch.einsum("qhk,khd->qhd", pattern[..., : len(v)], v)
            torch.testing.assert_close(z, found["z", layer][mine], **close(family))


@pytest.mark.parametrize("family", BRIDGED)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_edits(family: str, padding: str) -> None:
    sites = [s for s in shared(family, SITES) if s not in ("logits", "embed", "final_norm")]
    for site in sites:
        if site == "pattern" and family in READ_ONLY:
            continue
        edit = wb.Edit((site, 2), lambda old, _: old / 2)
        found, expected = (
            m.intervene(m.batch(TEXTS, padding), [edit], ["resid_post", "logits"])
            for m in (bridge(family), model(family))
        )
        assert_equal(family, found, expected)


@pytest.mark.parametrize("family", READ_ONLY)
def test_a_pattern_that_cannot_be_changed_is_refused(family: str) -> None:
    hooked = bridge(family)
    with pytest.raises(wb.UnsupportedError, match="pattern can be read and not edited"):
        hooked.intervene("abc", [wb.Edit.set(("pattern", 1), torch.zeros(1))])
    with pytest.raises(wb.UnsupportedError, match="pattern can be read and not differentiated"):
        hooked.grad("abc", loss, ["pattern"])
    assert "pattern" in hooked.provenance()["read_only"]


@pytest.mark.parametrize("family", BRIDGED)
def test_resid_mid_edit_moves_the_skip_connection_too(family: str) -> None:
    """transformer-lens' own hook changes what the MLP reads alone."""
    if not has(family, "resid_mid"):
        return
    value = torch.linspace(-1, 1, 16, dtype=torch.float64)
    edit = wb.Edit.set(("resid_mid", 2), value)
    edited = bridge(family).intervene(TEXTS, [edit], ["resid_mid", "resid_post", "mlp_out"])
    torch.testing.assert_close(
        edited["resid_mid", 2], value.expand_as(edited["resid_mid", 2]), **close(family)
    )
    torch.testing.assert_close(
        edited["resid_post", 2], value + edited["mlp_out", 2], **close(family)
    )


@pytest.mark.parametrize("family", BRIDGED)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_restart_from_every_layer_is_exact(family: str, padding: str) -> None:
    hooked = bridge(family)
    batch = hooked.batch(TEXTS, padding)
    full = hooked.capture(batch, ["resid_post", "logits"])
    for layer in range(LAYERS + 1):
        resid = padded(batch, full["resid_post", layer], full.places)
        again = hooked.tail(batch, layer, resid)
        assert torch.equal(again["logits", LAYERS], full["logits", LAYERS])


@pytest.mark.parametrize("family", BRIDGED)
def test_a_restart_shows_the_given_states(family: str) -> None:
    hooked = bridge(family)
    batch = hooked.batch(TEXTS[:2])
    states = torch.randn(*batch.ids.shape, 16, generator=torch.Generator().manual_seed(3)).double()
    given = batch.places().gather(states)
    for layer in range(LAYERS):
        wanted = [("resid_post", layer), ("resid_pre", layer + 1), "logits"]
        found, expected = (m.tail(batch, layer, states, wanted) for m in (hooked, model(family)))
        assert torch.equal(found["resid_post", layer], given)
        assert torch.equal(found["resid_pre", layer + 1], given)
        assert_equal(family, found, expected)


@pytest.mark.parametrize("family", BRIDGED)
def test_gradients(family: str) -> None:
    left_out = ("logits", *(("pattern",) if family in READ_ONLY else ()))
    for site in shared(family, SITES):
        if site in left_out:
            continue
        found, expected = (m.grad(TEXTS, loss, [site]) for m in (bridge(family), model(family)))
        assert_equal(family, found, expected)


@pytest.mark.parametrize("family", BRIDGED)
def test_blocks_and_branches(family: str) -> None:
    hooked, plain = bridge(family), model(family)
    batch = hooked.batch(TEXTS, "left")
    states = torch.randn(*batch.ids.shape, 16, generator=torch.Generator().manual_seed(4)).double()
    parts = ["block"] if family == "bert" else ["block", "attention", "mlp"]
    for part in parts:
        for layer in range(1, LAYERS + 1):
            out = [
                batch.places().gather(m.block(batch, layer, states, part)) for m in (hooked, plain)
            ]
            torch.testing.assert_close(*out, **close(family))


@pytest.mark.parametrize("family", DECODERS)
def test_the_last_columns_with_keys_and_values(family: str) -> None:
    hooked, begin = bridge(family), 5
    batch = hooked.batch(["abcdefgh", "ijklmnop"])
    sites = ["logits", *(site for site in ("q", "k", "v", "pattern", "z") if gives(family, site))]
    full = hooked.capture(batch, ["resid_post", *sites], slice(begin, None))
    prefix = hooked.keys_values(batch).before(begin)
    states = hooked.capture(batch, ["resid_post"])
    for layer in range(LAYERS + 1):
        resid = padded(batch, states["resid_post", layer], states.places)[:, begin:]
        wanted = [site for site in full.values if site.layer > layer and site.name in sites]
        if not wanted:
            continue
        again = hooked.tail(batch, layer, resid, wanted, slice(begin, None), prefix)
        for site in wanted:
            torch.testing.assert_close(again[site], full[site], **close(family))


@pytest.mark.parametrize("family", [f for f in DECODERS if f in DENSE and f != "phi3"])
def test_factors(family: str) -> None:
    maps = [(name, layer) for name in model(family).anatomy.family.maps for layer in (1, LAYERS)]
    maps = [(name, layer) for name, layer in maps if name not in bridge(family).anatomy.split]
    assert {"ff1", "gate"} & {name for name, _ in maps}
    found, expected = (m.factors(TEXTS, loss, maps) for m in (bridge(family), model(family)))
    for key, factors in expected.items():
        torch.testing.assert_close(found[key].x, factors.x, **close(family))
        torch.testing.assert_close(found[key].delta, factors.delta, **close(family))


def test_a_map_that_it_splits_is_refused_by_name() -> None:
    with pytest.raises(
        wb.UnsupportedError, match="phi3 has no linear map 'gate': transformer-lens"
    ):
        bridge("phi3").factors("abc", loss, [("gate", 1)])
    bridge("phi3").factors("abc", loss, [("down", 1)])


@pytest.mark.parametrize("family", BRIDGED)
def test_readout(family: str) -> None:
    states = torch.randn(5, 16, generator=torch.Generator().manual_seed(5)).double()
    found, expected = (m.readout(states) for m in (bridge(family), model(family)))
    torch.testing.assert_close(found, expected, **close(family))


@pytest.mark.parametrize("family", [family for family in BRIDGED if family != "olmo2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_gives_the_same_sites(family: str, dtype: torch.dtype) -> None:
    low, high = bridge(family, dtype), bridge(family)
    assert low.dtype == dtype
    for what in (lambda m: m.refused, lambda m: m.anatomy.silent, lambda m: m.read_only):
        assert what(low).keys() == what(high).keys()


def test_a_family_that_it_cannot_run_in_a_dtype_is_refused() -> None:
    with pytest.raises(wb.UnsupportedError, match=r"transformer-lens in torch\.bfloat16 fails"):
        bridge("olmo2", torch.bfloat16)
    assert bridge("olmo2", torch.float32).dtype == torch.float32

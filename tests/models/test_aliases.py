"""transformer-lens' hook names as sites: the very tensors of those hooks, on every engine."""

import pytest
import torch

import workbench as wb
from tests.models.bridges import bridge
from tests.models.test_engine import close
from tests.tiny import LAYERS, model
from workbench.models.sites import expand_sites, site_of

LLAMA = {
    "blocks.1.hook_in": ("resid_pre", 2),
    "blocks.0.hook_resid_pre": ("resid_pre", 1),
    "blocks.1.hook_resid_mid": ("resid_mid", 2),
    "blocks.2.hook_resid_post": ("resid_post", 3),
    "blocks.1.hook_out": ("resid_post", 2),
    "blocks.1.hook_attn_out": ("attn_out", 2),
    "blocks.1.hook_mlp_out": ("mlp_out", 2),
    "blocks.1.mlp.hook_post": ("mlp_act", 2),
    "blocks.1.attn.hook_rot_q": ("q", 2),
    "blocks.1.attn.hook_rot_k": ("k", 2),
    "blocks.1.attn.hook_v": ("v", 2),
    "blocks.1.attn.hook_pattern": ("pattern", 2),
    "blocks.1.attn.hook_z": ("z", 2),
    "ln_final.hook_out": ("final_norm", LAYERS),
}


@pytest.mark.parametrize(("name", "site"), LLAMA.items())
def test_a_name_means_the_tensor_of_that_hook(name: str, site: tuple[str, int]) -> None:
    """transformer-lens' own cache is the oracle."""
    assert expand_sites([name], LAYERS) == (site,)
    lens = bridge("llama")
    ids = torch.tensor([lens.encode(wb.Prompt("abcd")).ids])
    with torch.no_grad():
        cached = lens.bridge.run_with_cache(ids, names_filter=name)[1][name][0]
    expected = cached.transpose(0, 1) if site[0] == "pattern" else cached
    for hooked in (lens, model("llama")):
        found = hooked.capture("abcd", [name]).values
        torch.testing.assert_close(found[site_of(site)], expected, **close("llama"))


def test_names_work_wherever_a_site_is_asked_for() -> None:
    name, site = "blocks.0.hook_mlp_out", ("mlp_out", 1)
    for hooked in (bridge("gpt2"), model("gpt2")):
        found = hooked.capture("abc", [name, name, site, "logits"])
        assert torch.equal(found[name], found[site])
        edits = [wb.Edit.set(which, torch.ones(16)) for which in (name, site)]
        first, second = (hooked.intervene("abc", [edit])["logits", LAYERS] for edit in edits)
        assert torch.equal(first, second)
        grads = [hooked.grad("abc", lambda z, _: z[:, 1].sum(), [which]) for which in (name, site)]
        assert torch.equal(grads[0][name], grads[1][site])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "blocks.1.hook_nothing",
            "hook 'blocks.1.hook_nothing' is no canonical site: expected one",
        ),
        ("blocks.1.attn.hook_q", "it is q before rotary; ask for q"),
        ("blocks.1.mlp.hook_pre", "no canonical site: expected one of hook_in, hook_resid_pre"),
        ("hook_embed", "the tokens' embedding alone.* ask for embed"),
        ("ln_final.hook_normalized", "the norm before its weight; ask for final_norm"),
        ("blocks.3.hook_resid_post", r"resid_post has no layer 4: expected 0\.\.3"),
    ],
)
def test_a_hook_that_is_no_site_is_refused(name: str, message: str) -> None:
    with pytest.raises(wb.SettingError, match=message):
        model("gpt2").capture("abc", [name])


def test_the_refused_names_hold_other_tensors() -> None:
    """What transformer-lens has under the names that are not taken for a site."""
    lens = bridge("gpt2")
    ids = torch.tensor([[97, 98, 99]])
    with torch.no_grad():
        cache = lens.bridge.run_with_cache(ids)[1]
    found = lens.capture("abc", ["embed", "final_norm"])
    assert (cache["hook_embed"][0] - found["embed", 0]).abs().max() > 0.1
    assert (cache["ln_final.hook_normalized"][0] - found["final_norm", LAYERS]).abs().max() > 0.1
    rotated = bridge("llama")
    ids = torch.tensor([rotated.encode(wb.Prompt("abc")).ids])
    with torch.no_grad():
        before = rotated.bridge.run_with_cache(ids)[1]["blocks.1.attn.hook_q"][0]
    assert (before - rotated.capture("abc", [("q", 2)])["q", 2]).abs().max() > 0.1


def test_one_site_needs_a_layer() -> None:
    with pytest.raises(wb.SettingError, match="site 'resid_post' names no layer"):
        wb.Edit.set("resid_post", torch.zeros(16))

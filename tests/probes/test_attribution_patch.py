"""Attribution patching against finite differences, completeness and exact effects."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

import workbench as wb
from probes.causal.contrast import Contrast
from probes.causal.effects import Direction
from probes.causal.metrics import Metric
from probes.circuits.pair import Pair
from probes.circuits.patching import attributed, path_nodes
from tests.tiny import model
from workbench.models.captures import Read
from workbench.models.edits import Edit

SITES = ("resid_post", "attn_out", "mlp_out", "z")
PROMPT = wb.Prompt("abcdefg", target="h", foil="x", subject="cd")
PAIR = wb.Prompt("abcdefg", target="h", foil="x", corrupted="abXdeYg")
LONG = wb.Prompt("abcdefg", target="hij", subject="cd")


def pair(
    family: str = "gpt2", prompt: wb.Prompt = PROMPT, metric: Metric = "logit_difference"
) -> Pair:
    hooked = model(family)
    encoded = [hooked.encode(prompt, long_targets=True)]
    if prompt.corrupted is not None:
        contrast = Contrast.by_text(hooked, encoded, "attribution_patch")
    else:
        contrast = Contrast.by_noise(hooked, encoded, std=0.3, samples=2, seed=0)
    return Pair.of(hooked, contrast, metric)


def patched(
    it: Pair, direction: Direction, cells: Sequence[tuple[str, int, int]], share: float
) -> torch.Tensor:
    """[samples] the plain way: base runs with `share` of the way to the source at each cell."""
    base, source = (side.expand(it.samples, -1, -1) for side in it.ends(direction))
    values, _ = it.read(source, [(name, layer) for name, layer, _ in cells])
    edits = []
    for name, layer, column in cells:
        new = values[name, layer].unflatten(0, (it.samples, it.width))[:, column]
        edits.append(
            Edit((name, layer), lambda old, _, new=new: old + share * (new - old), [column])
        )
    read = Read("logits", it.at)
    found = it.model.read(it.batch(it.samples), [read], edits=edits, start=(0, base))[0]
    return it.scored(found["logits", it.model.n_layers])


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("metric", ["logprob", "logit_difference", "kl"])
def test_effects_are_the_slope_along_what_is_put_in(direction: Direction, metric: Metric) -> None:
    it = pair(metric=metric)
    found = attributed(it, direction, SITES, 0)
    for name, layer, column in [("resid_post", 0, 3), ("resid_post", 2, 6), ("mlp_out", 1, 4)]:
        index = layer if name == "resid_post" else layer - 1
        up, down = (patched(it, direction, [(name, layer, column)], e) for e in (1e-5, -1e-5))
        # central differences in float64: 1e-10 of curvature, 1e-15 / 1e-5 of rounding
        torch.testing.assert_close(
            (up - down) / 2e-5, found.effects[name][index, :, column], atol=1e-8, rtol=1e-6
        )


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("prompt", [PAIR, LONG], ids=["pair", "long"])
def test_every_family_and_target(family: str, prompt: wb.Prompt) -> None:
    it = pair(family, prompt, "logprob")
    found = attributed(it, "denoising", SITES, 0)
    # RMSNorm computes in float32 whatever the dtype: 1e-7 of rounding over the step, 1e-5 of curvature
    step, atol = (1e-5, 1e-8) if family == "gpt_neox" else (3e-3, 3e-4)
    up, down = (patched(it, "denoising", [("attn_out", 2, 5)], e) for e in (step, -step))
    expected = found.effects["attn_out"][1, :, 5]
    torch.testing.assert_close((up - down) / (2 * step), expected, atol=atol, rtol=1e-6)
    assert float(expected.abs().max()) > 10 * atol
    assert found.base.equal(it.read(it.ends("denoising")[0], ["resid_post"])[1])


@pytest.mark.parametrize("steps", [0, 3])
def test_heads_add_up_to_attention(steps: int) -> None:
    """What heads add sums to attn_out, up to a bias that both sides share."""
    found = attributed(pair(), "denoising", SITES, steps).effects
    torch.testing.assert_close(found["z"].sum(-1), found["attn_out"], atol=1e-13, rtol=0)


@pytest.mark.parametrize("prompt", [PROMPT, PAIR], ids=["noise", "pair"])
def test_the_integral_over_embeddings_is_complete(prompt: wb.Prompt) -> None:
    it = pair(prompt=prompt)
    total = attributed(it, "denoising", ("resid_post",), 24)
    gaps = [
        (attributed(it, "denoising", ("resid_post",), n).effects["resid_post"][0].sum(-1))
        - (total.source - total.base)
        for n in (0, 2, 24)
    ]
    errors = [float(gap.abs().max()) for gap in gaps]
    assert errors[2] < 1e-8  # the rule of 24 points on a path that is smooth
    assert errors[0] > 1e-3


def test_the_integral_has_no_direction() -> None:
    sides = [attributed(pair(), way, SITES, 4) for way in ("denoising", "noising")]
    for name in SITES:
        torch.testing.assert_close(
            sides[0].effects[name], -sides[1].effects[name], atol=1e-12, rtol=0
        )


def test_weights_of_the_path_sum_to_one() -> None:
    for steps in (1, 2, 5):
        nodes, weights = zip(*path_nodes(steps), strict=True)
        assert sum(weights) == pytest.approx(1, abs=1e-14)
        assert sum(n * w for n, w in zip(nodes, weights, strict=True)) == pytest.approx(0.5)


def test_nothing_before_the_corruption_and_nothing_unread_in_the_last_block() -> None:
    it = pair()
    found = attributed(it, "denoising", SITES, 0).effects
    for name in ("resid_post", "attn_out", "mlp_out"):
        assert not found[name][:, :, : it.contrast.same].any()
        assert not found[name][-1, :, :-1].any()


@pytest.mark.parametrize(("steps", "forward"), [(0, 2), (3, 5)])
def test_the_whole_grid_takes_two_forward_passes_and_one_more_a_step(
    steps: int, forward: int
) -> None:
    it = pair()
    ran: list[int] = []
    handle = it.model.hf.transformer.h[0].mlp.register_forward_hook(lambda *_: ran.append(1))  # type: ignore[attr-defined]
    try:
        attributed(it, "denoising", SITES, steps)
    finally:
        handle.remove()
    assert len(ran) == forward

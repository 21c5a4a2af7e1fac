"""Gradients and factors against autograd's own weight gradients and finite differences."""

import pytest
import torch

import workbench as wb
from tests.models.test_engine import close
from tests.tiny import DENSE, EVERY, LAYERS, TEXTS, has, having, hf_model, model, tokenizer

TARGETS = torch.tensor([65, 66, 67, 68])


def loss(logits: torch.Tensor, places: wb.Places) -> torch.Tensor:
    """Negative log-likelihood of one target a prompt, summed over the batch."""
    return -logits.log_softmax(-1)[torch.arange(len(places)), TARGETS[places.row]].sum()


@pytest.mark.parametrize("family", DENSE)
def test_factors_give_autograd_weight_gradients(family: str) -> None:
    hf = hf_model(family)
    hooked = wb.load(hf, tokenizer())
    maps = [(name, layer) for name in hooked.anatomy.family.maps for layer in (LAYERS, 1)]
    found = hooked.factors([TEXTS[0]], loss, maps)
    ids = torch.tensor([hooked.encode(wb.Prompt(TEXTS[0])).ids])
    logits = hf(ids).logits[:, -1]
    (-logits.log_softmax(-1)[0, TARGETS[0]]).backward()
    for (name, layer), factors in found.items():
        weight = hooked.anatomy.map_module(name, layer).weight
        formed = factors.x.T @ factors.delta  # [d_in, d_out], as GPT-2's Conv1D keeps it
        expected = weight.grad if family == "gpt2" else weight.grad.T
        own = hooked.anatomy.map_outputs(name, layer)
        expected = expected if own is None else expected[:, own]
        tolerance = 1e-12 if family == "gpt2" else 1e-5
        torch.testing.assert_close(formed, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_batch_keeps_each_prompts_own_gradient(family: str, padding: str) -> None:
    hooked = model(family)
    sites = [s for s in ("resid_post", "attn_out", "mlp_out", "mlp_act") if has(family, s)]
    batch = hooked.grad(hooked.batch(TEXTS, padding), loss, sites)
    for row, text in enumerate(TEXTS):

        def own(logits: torch.Tensor, _: wb.Places, row: int = row) -> torch.Tensor:
            return -logits.log_softmax(-1)[0, TARGETS[row]]

        single = hooked.grad(text, own, sites)
        for site, values in single.values.items():
            mine = batch.values[site][batch.places.row == row]
            torch.testing.assert_close(mine, values, **close(family))


SITES = ["resid_post", "resid_mid", "attn_out", "mlp_out", "mlp_act", "final_norm"]


@pytest.mark.parametrize(("family", "site"), having(SITES))
def test_finite_differences(family: str, site: str) -> None:
    hooked = model(family)
    where = (site, LAYERS if site == "final_norm" else 2)
    gradient = hooked.grad(TEXTS[0], loss, [where])
    direction = torch.randn(
        gradient[where].shape, generator=torch.Generator().manual_seed(1)
    ).double()
    direction /= direction.norm()
    step = 1e-6 if family == "gpt2" else 1e-3  # float32 norms need the larger one

    def at(scale: float) -> float:
        edit = wb.Edit.add(where, scale * direction)
        found = hooked.intervene(TEXTS[0], [edit], positions="last")
        return float(loss(found["logits", LAYERS], found.places))

    slope = (at(step) - at(-step)) / (2 * step)
    expected = float((gradient[where] * direction).sum())
    # Central differences err by the step squared times a third derivative (of order 1 to 100) and
    # by rounding over the step.
    assert slope == pytest.approx(expected, rel=1e-3, abs=1e-8 if family == "gpt2" else 1e-3)


def test_gradients_of_positions_after_the_loss_are_zero() -> None:
    found = model("llama").grad(TEXTS[0], loss, ["resid_post"], at=3)
    later = found.places.position > 3
    assert found.stack("resid_post")[:, later].abs().max() == 0
    assert found.stack("resid_post")[:, ~later].abs().max() > 0


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(wb.ModelError, match="finite"):
        model("gpt2").grad("abc", lambda logits, _: logits.sum() * torch.inf, ["resid_post"])


def test_a_scalar_that_cannot_be_differentiated_is_refused() -> None:
    hooked = model("gpt2")
    with pytest.raises(wb.ModelError, match=r"got shape \(1, 257\), expected one number"):
        hooked.grad("abc", lambda logits, _: logits, ["resid_post"])
    with pytest.raises(wb.ModelError, match="does not depend on the logits"):
        hooked.grad("abc", lambda *_: torch.ones(()), ["resid_post"])


def test_a_map_of_another_kind_of_mlp_is_refused() -> None:
    with pytest.raises(wb.UnsupportedError, match="llama has no linear map 'ff1'.*gate"):
        model("llama").factors("abc", loss, [("ff1", 1)])


def test_gradient_flows_through_the_readout() -> None:
    state = torch.randn(2, 16, dtype=torch.float64, requires_grad=True)
    hooked = model("gemma2")
    (gradient,) = torch.autograd.grad(hooked.readout(state)[:, 65].sum(), state)
    assert gradient.abs().max() > 0
    assert all(p.grad is None for p in hooked.hf.parameters())

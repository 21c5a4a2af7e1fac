"""Weights, norms, changes of weights and the random twin, on every family."""

from __future__ import annotations

from threading import Thread

import pytest
import torch

import workbench as wb
from tests.models.test_engine import close
from tests.tiny import DENSE, FAMILIES, LAYERS, TEXTS, hf_model, model, tokenizer, tokenizer_of
from workbench.models.norms import Norm
from workbench.results import called

TEXT = "a b c d e f"
T5 = ["t5", "t5_gated"]


@pytest.mark.parametrize("family", [*FAMILIES, *T5])
def test_norm_and_unembedding_give_the_logits(family: str) -> None:
    hooked = model(family)
    last = hooked.n_layers
    found = hooked.capture(TEXT, ["resid_post", "logits"])
    state = found["resid_post", last]
    module, norm = hooked.weights.final_norm(state)
    linear = norm.linear(state) * norm.inverse_scale(state, module(state))[:, None] + norm.offset
    head = hooked.weights.unembedding
    logits = linear @ head.weight.T + (0 if head.bias is None else head.bias)
    if head.capped:
        cap = hooked.anatomy.config.final_logit_softcapping
        logits = cap * (logits / cap).tanh()
    torch.testing.assert_close(logits, found["logits", last], **close(family))


@pytest.mark.parametrize("family", DENSE)
def test_every_map_gives_its_outputs(family: str) -> None:
    """x W + b is what the module gives, apart for maps that share a module."""
    hooked = model(family)
    for name in hooked.anatomy.family.maps:
        found: list[torch.Tensor] = []
        module = hooked.anatomy.map_module(name, 2)
        hook = module.register_forward_hook(
            lambda m, a, out, found=found: found.extend((a[0].clone(), out.clone()))
        )
        hooked.capture(TEXT, "resid_post")
        hook.remove()
        one, own = hooked.weights.map(name, 2), hooked.anatomy.map_outputs(name, 2)
        given = found[0] @ one.weight + (0 if one.bias is None else one.bias)
        torch.testing.assert_close(given, found[1] if own is None else found[1][..., own])


@pytest.mark.parametrize("family", [f for f in DENSE if f not in ("bloom",)])
def test_heads_add_up_to_what_attention_adds(family: str) -> None:
    hooked = model(family)
    found = hooked.capture(TEXT, ["z", "attn_out"])
    parts = torch.einsum("nhe,hed->nhd", found["z", 2], hooked.weights.heads(2))
    bias = hooked.weights.map("o", 2).bias
    raw = parts.sum(1) + (0 if bias is None else bias * hooked.weights.multiplier)
    after = hooked.weights.branch_norm("o", 2)
    expected = raw if after is None else after[0](raw)
    torch.testing.assert_close(found["attn_out", 2], expected, **close(family))


def test_an_rms_norm_does_not_centre_and_a_layer_norm_does() -> None:
    for module, centres in ((torch.nn.LayerNorm(7), True), (torch.nn.RMSNorm(7), False)):
        norm = Norm.of(module, torch.zeros(7))
        assert norm.centres is centres
        state, other = torch.randn(2, 5, 7)
        torch.testing.assert_close(
            (norm.transposed(other) * state).sum(-1), (other * norm.linear(state)).sum(-1)
        )


def change_of(hooked: wb.TorchModel, name: str, rank: int = 2) -> wb.Change:
    weight = hooked.weights.map(name, 2).weight
    left, right = torch.randn(rank, weight.shape[0]), torch.randn(rank, weight.shape[1])
    return wb.Change(left.double() * 0.3, right.double() * 0.3)


@pytest.mark.parametrize("family", DENSE)
def test_a_change_is_the_written_weight(family: str) -> None:
    """Every map of every family against a model whose weights were overwritten."""
    torch.manual_seed(3)
    held = hf_model(family)
    hooked, written = model(family), wb.load(held, tokenizer_of(family))
    before = hooked.capture(TEXT, "logits")["logits", LAYERS]
    for name in hooked.anatomy.family.maps:
        change = change_of(hooked, name)
        view = hooked.with_changes({(name, 2): change})
        found = view.capture(TEXT, "logits")["logits", LAYERS]
        kept = {key: value.clone() for key, value in held.state_dict().items()}
        own = written.anatomy.map_outputs(name, 2)
        with torch.no_grad():
            weight = written.anatomy.map_module(name, 2).weight
            oriented = (
                weight
                if weight.shape[0] == change.left.shape[1]
                and "Conv1D" in type(written.anatomy.map_module(name, 2)).__name__
                else weight.T
            )
            if own is None:
                oriented += change.formed
            else:
                oriented[:, own] += change.formed
        torch.testing.assert_close(
            found, written.capture(TEXT, "logits")["logits", LAYERS], **close(family)
        )
        torch.testing.assert_close(
            view.weights.map(name, 2).weight, written.weights.map(name, 2).weight
        )
        held.load_state_dict(kept)
        assert not torch.equal(found, before)
    assert torch.equal(hooked.capture(TEXT, "logits")["logits", LAYERS], before)


def test_changes_add_up_and_are_said() -> None:
    hooked = model("gpt2")
    change, other = change_of(hooked, "ff2"), change_of(hooked, "ff2", 1)
    twice = hooked.with_changes({("ff2", 2): change}).with_changes({("ff2", 2): other})
    both = wb.Change(torch.cat([change.left, other.left]), torch.cat([change.right, other.right]))
    once = hooked.with_changes({("ff2", 2): both})
    found, expected = (m.capture(TEXT, "logits")["logits", LAYERS] for m in (twice, once))
    torch.testing.assert_close(found, expected)
    (said,) = once.provenance()["changes"]
    assert (said["map"], said["layer"], said["rank"]) == ("ff2", 2, 3)
    assert "changes" not in hooked.provenance()
    assert called(once.provenance()) == f"{hooked.name} with ff2 of layer 2 changed"
    many = once.with_changes({("ff1", layer): change_of(hooked, "ff1") for layer in (1, 2, 3)})
    assert called(many.provenance()) == f"{hooked.name} with 4 maps changed"
    weights = {m.provenance()["weights"] for m in (hooked, once, twice)}
    assert len(weights) == 2


def test_a_change_holds_for_gradients_and_re_entrant_passes() -> None:
    """The lock is taken again inside a pass; the change must not be made twice."""
    hooked = model("gpt2")
    view = hooked.with_changes({("ff2", 2): change_of(hooked, "ff2")})
    with view.lock:
        inside = view.capture(TEXT, "logits")["logits", LAYERS]
    torch.testing.assert_close(inside, view.capture(TEXT, "logits")["logits", LAYERS])

    def scalar(logits: torch.Tensor, _: wb.Places) -> torch.Tensor:
        return logits[:, 5].sum()

    own = view.grad(TEXT, scalar, ["resid_post"])["resid_post", 0]
    assert not torch.allclose(own, hooked.grad(TEXT, scalar, ["resid_post"])["resid_post", 0])


def test_another_thread_does_not_see_the_change() -> None:
    hooked = model("gpt2")
    view = hooked.with_changes({("ff2", 2): change_of(hooked, "ff2")})
    plain, seen = hooked.hf(torch.tensor([[65, 66]])).logits, []
    with view.lock:
        thread = Thread(target=lambda: seen.append(hooked.hf(torch.tensor([[65, 66]])).logits))
        thread.start()
        thread.join()
    assert torch.equal(seen[0], plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({("up", 2): (16, 64)}, "gpt2 has no linear map 'up'"),
        ({("ff2", 9): (64, 16)}, "no block 9"),
        ({("ff2", 2): (64, 3)}, "writes 3 numbers: expected 16"),
        ({("q", 2): (16, 48)}, "writes 48 numbers: expected 16"),
        ({("ff2", 2): (3, 16)}, "reads 3 numbers: expected 64"),
    ],
)
def test_what_cannot_be_changed_is_refused(changes: dict, message: str) -> None:
    made = {k: wb.Change(torch.ones(1, a), torch.ones(1, b)) for k, (a, b) in changes.items()}
    with pytest.raises(wb.WorkbenchError, match=message):
        model("gpt2").with_changes(made)


def test_a_change_must_be_finite_and_of_one_rank() -> None:
    with pytest.raises(wb.SettingError, match="not finite"):
        wb.Change(torch.ones(1, 3), torch.tensor([[float("nan")]]))
    with pytest.raises(wb.SettingError, match="expected \\[rank, d_in\\]"):
        wb.Change(torch.ones(2, 3), torch.ones(1, 3))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "mixtral"])
def test_the_twin_is_of_the_same_shape_and_the_same_each_time(family: str) -> None:
    hooked = wb.load(hf_model(family), tokenizer())
    twin = hooked.twin(seed=1)
    assert twin is hooked.twin(seed=1)
    other = wb.load(hf_model(family), tokenizer()).twin(seed=1)
    texts = TEXTS[:2]
    for m in (other, hooked.twin(seed=2)):
        same = torch.equal(
            twin.capture(texts, "logits").values["logits", LAYERS],
            m.capture(texts, "logits").values["logits", LAYERS],
        )
        assert same is (m is other)
    assert twin.dtype == hooked.dtype
    assert "random weights (seed 1)" in twin.name
    torch.rand(3)  # the caller's own random numbers go on as if nothing was drawn


def test_drawing_a_twin_leaves_the_callers_random_numbers() -> None:
    hooked = wb.load(hf_model("gpt2"), tokenizer())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    hooked.twin()
    assert torch.equal(torch.rand(3), expected)


def test_engines_without_weights_refuse_by_name() -> None:
    hooked = wb.load(hf_model("gpt2"), tokenizer(), engine="nnsight")
    for call in (lambda: hooked.weights, lambda: hooked.with_changes({})):
        with pytest.raises(wb.UnsupportedError, match="nnsight engine has no"):
            call()

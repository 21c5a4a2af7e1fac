"""Edits of weights against their definitions, and that nothing is left of them."""

import re
from hashlib import sha256

import pytest
import torch

import workbench as wb
from lenses import GradientStep, ImprintShift, LogitLens, WeightEdit
from lenses.editing.answers import Answer, scores
from tests.tiny import LAYERS, hf_model, model, tokenizer_of

TEXT = "a b c d e"
PROMPT = wb.Prompt(TEXT, target="Q")
LONG = wb.Prompt(TEXT, target="QRS")


def writes(hooked: wb.TorchModel) -> str:
    return hooked.weights.last_mlp_map


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "granite"])
def test_where_the_imprint_comes_again_the_map_adds_eta_x_squared_e(family: str) -> None:
    hooked, eta = model(family), 0.24
    with ImprintShift(2, eta, "raw").of(hooked, PROMPT).on(hooked) as edited:
        before, after = (m.capture(TEXT, ["mlp_act", "mlp_out"], "last") for m in (hooked, edited))
    x, target = before["mlp_act", 2][0], hooked.encode(PROMPT).target
    e = hooked.weights.unembedding.weight[target]
    shift = hooked.weights.multiplier * eta * x.square().sum() * e
    # Float64, and float32 inside the norms of some families, which lie below the difference.
    torch.testing.assert_close(
        after["mlp_out", 2][0] - before["mlp_out", 2][0], shift, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("family", ["gpt2", "llama", "granite"])
def test_a_relative_size_is_the_shifts_length_over_the_states(family: str) -> None:
    hooked = model(family)
    for layer in (1, LAYERS):
        with ImprintShift(layer, 0.3).of(hooked, PROMPT).on(hooked) as edited:
            before, after = (
                m.capture(TEXT, [("resid_post", layer)], "last") for m in (hooked, edited)
            )
        state = before["resid_post", layer][0]
        added = after["resid_post", layer][0] - state
        torch.testing.assert_close(added.norm(), 0.3 * state.norm(), rtol=1e-6, atol=0)


def test_at_the_last_layer_logits_change_by_the_closed_form() -> None:
    """d logits / d eta = W_U g (c(v) - n mean(n c(v))) / s, v = |x|^2 e, n the normed state."""
    hooked, step = model("gpt2"), 1e-5
    found = hooked.capture(TEXT, ["mlp_act", "resid_post", "logits"], "last")
    x, state = found["mlp_act", LAYERS][0], found["resid_post", LAYERS][0]
    module, norm = hooked.weights.final_norm(state)
    weight = hooked.weights.unembedding.weight
    v = norm.centred(x.square().sum() * weight[hooked.encode(PROMPT).target])
    s = 1 / norm.inverse_scale(state, module(state))
    n = norm.centred(state) / s
    expected = weight @ (norm.gain * (v - n * (n * v).mean()) / s)
    up, down = (
        ImprintShift(LAYERS, eta, "raw").of(hooked, PROMPT).on(hooked) for eta in (step, -step)
    )
    with up as more, down as less:
        ends = [m.capture(TEXT, ["logits"], "last")["logits", LAYERS][0] for m in (more, less)]
    # Central differences: an error of step^2 times a third derivative of the size of |v|^3.
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prompt", [PROMPT, LONG], ids=["one token", "three tokens"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_gradient_step_is_autograds(family: str, prompt: wb.Prompt) -> None:
    held = hf_model(family)
    hooked = wb.load(held, tokenizer_of(family))
    maps = [(writes(hooked), 1), (writes(hooked), LAYERS), ("q", 2)]
    edit = GradientStep(maps, 0.1).of(hooked, prompt)
    assert all(parameter.grad is None for parameter in held.parameters())
    ids = list(hooked.encode(wb.Prompt(TEXT + str(prompt.target))).ids)
    n = len(str(prompt.target))
    logits = held(torch.tensor([ids[:-1]])).logits[0, -n:].log_softmax(-1)
    (-logits.gather(1, torch.tensor(ids[-n:])[:, None]).sum()).backward()
    for name, layer in maps:
        module = hooked.anatomy.map_module(name, layer)
        grad = module.weight.grad if "Conv1D" in type(module).__name__ else module.weight.grad.T
        own = hooked.anatomy.map_outputs(name, layer)
        expected = -0.1 * (grad if own is None else grad[:, own])
        # Norms and the soft-cap of some families run in float32.
        torch.testing.assert_close(edit.changes[name, layer].formed, expected, rtol=1e-5, atol=1e-7)
        assert edit.changes[name, layer].norm == pytest.approx(float(expected.norm()), rel=1e-4)


def test_a_target_of_several_tokens_gets_a_change_for_each() -> None:
    hooked = model("gpt2")
    edit = ImprintShift(2, 0.5, "raw").of(hooked, LONG)
    whole = hooked.capture("a b c d eQR", [("mlp_act", 2)])["mlp_act", 2]
    torch.testing.assert_close(edit.change.left, whole[-3:])
    rows = hooked.weights.unembedding.weight[hooked.encode(LONG, long_targets=True).answer, :]
    torch.testing.assert_close(edit.change.right, 0.5 * rows)
    answer = Answer.of(hooked.encode(LONG, long_targets=True))
    with ImprintShift(LAYERS, 3.0).of(hooked, LONG).on(hooked) as edited:
        assert scores(edited, [answer]).logprob > scores(hooked, [answer]).logprob


def test_scores_are_the_definitions() -> None:
    hooked = model("gpt2")
    long, short = (Answer.of(hooked.encode(p, long_targets=True)) for p in (LONG, PROMPT))
    other = Answer.to(hooked, "xyz", "Q")
    found = scores(hooked, [long, short, other])
    for index, (text, n) in enumerate([("a b c d eQRS", 3), ("a b c d eQ", 1), ("xyzQ", 1)]):
        logits = hooked.capture(text, "logits")["logits", LAYERS][-n - 1 : -1]
        ids = torch.tensor([hooked.encode(wb.Prompt(text)).ids[-n:]]).T
        logprob = logits.log_softmax(-1).gather(1, ids)
        ranks = (logits > logits.gather(1, ids)).sum(-1) + 1
        torch.testing.assert_close(found.logprob[index], logprob.sum())
        assert found.rank[index] == ranks.max()
        assert found.top[index] == logits[0].argmax()


def test_undoing_is_exact_also_after_an_exception() -> None:
    held = hf_model("llama")
    hooked = wb.load(held, tokenizer_of("llama"))

    def state() -> tuple[str, bytes, str]:
        weights = b"".join(t.numpy().tobytes() for t in held.state_dict().values())
        logits = hooked.capture(TEXT, "logits")["logits", LAYERS]
        return sha256(weights).hexdigest(), logits.numpy().tobytes(), str(hooked.provenance())

    before = state()
    edit = ImprintShift(2).of(hooked, PROMPT)
    with edit.on(hooked) as edited:
        inside = LogitLens()(edited, PROMPT)
    assert inside.provenance["model"]["changes"][0]["layer"] == 2
    with pytest.raises(wb.SettingError, match="unknown site"), edit.on(hooked) as edited:
        edited.capture(TEXT, "nowhere")
    assert state() == before
    assert "changes" not in LogitLens()(hooked, PROMPT).provenance["model"]


def test_an_edit_can_be_made_larger() -> None:
    hooked = model("gpt2")
    edit = ImprintShift(2, 1.0, "raw").of(hooked, PROMPT)
    torch.testing.assert_close(
        edit.times(2.5).change.formed, ImprintShift(2, 2.5, "raw").of(hooked, PROMPT).change.formed
    )
    assert repr(edit) == f"<edit of ff2 of layer 2, rank 1: norm {edit.norm:.4g}>"
    assert edit.times(-2.0).norm == pytest.approx(2 * edit.norm)


REFUSED = [
    (lambda: ImprintShift(2, 0.0), "eta is 0.0: expected a finite number"),
    (lambda: ImprintShift(2, float("nan")), "eta is nan"),
    (lambda: ImprintShift(2, 1.0, "big"), "scale is 'big': expected one of state, raw"),  # type: ignore[arg-type]
    (lambda: GradientStep([("ff2", 1)], float("inf")), "lr is inf"),
    (lambda: GradientStep([], 1.0), "expected \\(name, layer\\) pairs"),
    (lambda: GradientStep(["ff2"], 1.0), "expected \\(name, layer\\) pairs"),  # type: ignore[list-item]
    (lambda: ImprintShift(9).of(model("gpt2"), PROMPT), "has no layer 9"),
    (lambda: ImprintShift(2).of(model("gpt2"), TEXT), "has no target"),
    (lambda: ImprintShift(2).of(model("gpt2"), [PROMPT, LONG]), "2 prompts: expected one"),
    (lambda: ImprintShift(2).of(model("mixtral"), PROMPT), "mixtral has no linear map 'down'"),
    (
        lambda: ImprintShift(2).of(model("bert"), PROMPT),
        "an encoder model: an edit needs a decoder",
    ),
    (lambda: ImprintShift(2).of(model("t5"), PROMPT), "an encoder-decoder model"),
    (lambda: ImprintShift(2).of(model("gemma2"), PROMPT), "a norm stands between.*scale=raw"),
    (lambda: GradientStep([("up", 1)], 0.1).of(model("gpt2"), PROMPT), "no linear map 'up'"),
    (lambda: WeightEdit({}).change, "an edit of 0 maps"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_cannot_be_edited_is_refused(call, message: str) -> None:
    with pytest.raises(wb.WorkbenchError, match=message) as caught:
        call()
    assert re.search(r"\n", str(caught.value)) is None


def test_engines_without_changes_refuse_by_name() -> None:
    hooked = wb.load(hf_model("gpt2"), tokenizer_of("gpt2"), engine="nnsight")
    with pytest.raises(wb.UnsupportedError, match="the nnsight engine has no"):
        ImprintShift(2).of(hooked, PROMPT)

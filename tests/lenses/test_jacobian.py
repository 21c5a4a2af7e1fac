"""The fitted Jacobians against torch's own, against transformer-lens', and on every kind of block."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import workbench as wb
from lenses import Corpus, JacobianFit, JacobianLens, LogitLens
from lenses.translators.jacobian_fit import summed_jacobians
from tests.tiny import LAYERS, hf_model, model, tokenizer

TEXTS = ["Eiffel Tower", "a b c d", "Rome"]
# Sums of at most 16 x 16 derivatives of size ~10 through three blocks in float64.
EXACT = {"rtol": 0, "atol": 1e-10}


def explicit(hooked: wb.TorchModel, text: str, layer: int, skip: tuple[int, int]) -> Tensor:
    """J_l of one prompt by its definition: all d h_L,t' / d h_l,t from torch's own Jacobian."""
    batch = hooked.batch(text)
    states = hooked.capture(text, ["resid_post"])["resid_post", layer][None]
    anatomy = hooked.anatomy

    def above(h: Tensor) -> Tensor:
        from workbench.models.forward import run
        from workbench.models.hooks import attached

        out: list[Tensor] = []
        with attached([(anatomy.point(wb.Site("resid_post", LAYERS)), out.append)]):
            run(hooked.hf, anatomy, batch, start=(layer, h))
        return out[0]

    whole = torch.autograd.functional.jacobian(above, states)[0, :, :, 0]  # [t', d, t, d]
    inside = range(skip[0], states.shape[1] - skip[1])
    found = torch.zeros_like(whole[0, :, 0])
    for t in inside:
        for later in inside:
            if later >= t:
                found += whole[later, :, t]
    return found / len(inside)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2", "mixtral"])
def test_sums_equal_torchs_own_jacobians(family: str) -> None:
    hooked, skip = model(family), (1, 1)
    prompts = [hooked.encode(wb.Prompt(text)) for text in TEXTS]
    found = summed_jacobians(hooked, prompts, range(LAYERS), directions=5, skip=skip)
    for layer in (0, LAYERS - 1):
        expected = sum(explicit(hooked, text, layer, skip) for text in TEXTS)
        # RMS norms compute in float32: roundings of 1e-7 of derivatives of size 10 to 100.
        close = EXACT if family in ("gpt2", "gpt_neox") else {"rtol": 0, "atol": 2e-5}
        torch.testing.assert_close(found[layer], expected, **close)
    assert all(p.grad is None for p in hooked.hf.parameters())


def test_the_last_layers_jacobian_is_the_identity() -> None:
    hooked = model("llama")
    prompts = [hooked.encode(wb.Prompt(text)) for text in TEXTS]
    found = summed_jacobians(hooked, prompts, [LAYERS], directions=3, skip=(0, 0))
    # 1/n summed n times
    torch.testing.assert_close(found[0] / len(prompts), torch.eye(16).double(), rtol=0, atol=1e-14)


def test_batching_and_directions_change_nothing() -> None:
    hooked = model("gpt2")
    lens = JacobianFit(skip_first=0, held_out=0.0)(hooked, TEXTS)
    other = JacobianFit(skip_first=0, held_out=0.0, directions=3, batch_tokens=1)(hooked, TEXTS)
    torch.testing.assert_close(lens.tensors["weight"], other.tensors["weight"], **EXACT)


@pytest.mark.filterwarnings("ignore")  # of the peer
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_agrees_with_transformer_lens(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformer_lens.tools.analysis import jacobian_lens as peer

    bridged = wb.load(hf_model(family), tokenizer(), engine="transformer_lens")
    monkeypatch.setattr(peer, "_require_raw_bridge", lambda *_, **__: None)
    own_ids = lambda text: bridged.batch(text).ids  # noqa: E731 - the bridge has no tokenizer
    monkeypatch.setattr(bridged.bridge, "to_tokens", own_ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer.JacobianLens.fit(
            bridged.bridge,
            TEXTS,
            corpus="three texts",
            skip_first_positions=2,
            show_progress=False,
        )
    fit = JacobianFit(skip_first=2, skip_last=1, held_out=0.0)
    ours, own = fit(wb.load(hf_model(family), tokenizer()), TEXTS), fit(bridged, TEXTS)
    torch.testing.assert_close(own.tensors["weight"], ours.tensors["weight"], rtol=2e-5, atol=2e-5)
    for block, expected in theirs.jacobians.items():  # the state after block b is layer b + 1
        # theirs is kept in float32
        torch.testing.assert_close(
            ours.tensors["weight"][block + 1].float(), expected, rtol=2e-5, atol=2e-5
        )
    assert sorted(theirs.jacobians) == list(range(LAYERS - 1))


def test_the_lens_reads_through_its_matrix() -> None:
    hooked = model("gemma2")
    lens = JacobianFit(skip_first=0, held_out=0.0)(hooked, TEXTS)
    assert isinstance(lens, JacobianLens)
    data = LogitLens(lens=lens, top_k=257)(hooked, TEXTS[0]).data.sel(site="resid_post")
    states = hooked.capture(TEXTS[0], ["resid_post"]).stack("resid_post")
    for layer in range(LAYERS + 1):
        j = lens.tensors["weight"][layer] if layer < LAYERS else torch.eye(16).double()
        with torch.no_grad():
            expected = hooked.readout(states[layer] @ j.T).log_softmax(-1)
        found = torch.from_numpy(data.top_logprob.values[layer]).double()
        ids = torch.from_numpy(data.top_id.values[layer])
        # gemma's norm computes in float32; log-probabilities of size 10
        torch.testing.assert_close(found, expected.gather(1, ids), rtol=0, atol=2e-5)


def test_a_resumed_fit_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    hooked, stop = model("gpt2"), threading.Event()
    fit = JacobianFit(skip_first=0, batch_tokens=64, held_out=0.0)
    whole = fit(hooked, TEXTS * 2)
    kept = tmp_path / "kept.safetensors"

    def after_some(progress: wb.Progress) -> None:
        if progress.done > 20:
            stop.set()

    with pytest.raises(wb.Cancelled, match="stopped after"):
        fit(hooked, TEXTS * 2, checkpoint=kept, progress=after_some, cancel=stop)
    seen: list[int] = []
    again = fit(hooked, TEXTS * 2, checkpoint=kept, progress=lambda p: seen.append(p.done))
    assert torch.equal(again.tensors["weight"], whole.tensors["weight"])
    assert again.hash == whole.hash


@pytest.mark.parametrize(
    ("family", "fit", "error", "said"),
    [
        ("bert", {}, wb.UnsupportedError, "no decoder alone"),
        ("t5", {}, wb.UnsupportedError, "no decoder alone"),
        ("gpt2", {}, wb.PromptError, "has 12 tokens, of which skip_first=16 and skip_last=1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    family: str, fit: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        JacobianFit(**fit)(model(family), TEXTS)


def test_an_engine_without_pullback_says_so() -> None:
    hooked = wb.load(hf_model("gpt2"), tokenizer(), engine="nnsight")
    with pytest.raises(wb.UnsupportedError, match="nnsight engine has no pullback"):
        JacobianFit(skip_first=0)(hooked, Corpus.of(hooked, TEXTS))

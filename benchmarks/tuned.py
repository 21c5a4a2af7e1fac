"""Fitting lenses: a step of the tuned lens against its floor, the Jacobian lens against its peer.

Models are of GPT-2 small's width and vocabulary, with random weights and few blocks: every layer of a
lens costs the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import workbench as wb
from benchmarks.clock import interleave
from benchmarks.line import Line
from benchmarks.logit_lens import booted
from lenses import TunedLens
from lenses.translators.jacobian_fit import summed_jacobians
from lenses.translators.tuned_fit import add_gradients

__all__ = ["run"]

LAYERS, PLACES = 4, 128  # of the tuned lens
BLOCKS, WIDTH, TOKENS, DIRECTIONS = 2, 256, 32, 8  # of the Jacobian lens


def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """Measure and compare; sides are checked to give the same numbers first."""
    torch.manual_seed(0)
    yield from tuned_step(device, rounds)
    yield from jacobian_fit(device, rounds)


def tuned_step(device: torch.device, rounds: int) -> Iterator[Line]:
    """The gradients of 4 layers at 128 places: ours, by autograd as a whole, the products alone."""
    model = _random_model(device, LAYERS)
    caught = model.capture(
        model.batch([_prompt(torch.randint(0, 50257, (1, PLACES)))]), ["resid_post"]
    )
    states = [caught["resid_post", layer] for layer in range(model.n_layers + 1)]
    ours, naive = (
        {n: t.to(device).requires_grad_() for n, t in TunedLens.untrained(model).tensors.items()}
        for _ in range(2)
    )
    sides = {
        "ours": partial(_ours, ours, states, caught.readout),
        "naive": partial(_naive, naive, states, model),
        "floor": partial(_products, states, model.hf.lm_head.weight.detach()),
    }
    sides["ours"]()
    sides["naive"]()
    for name in ours:  # sums over 128 places in float32
        torch.testing.assert_close(ours[name].grad, naive[name].grad, rtol=1e-3, atol=1e-5)
    times = interleave(sides, rounds)
    seconds = {name: f"{times.median(name):.2f} s" for name in sides}
    yield Line(
        "tuned lens, gradients of a step / floor (products alone), time",
        times.ratio("ours", "floor"),
        None,
        f"{seconds['ours']} against {seconds['floor']}",
    )
    yield Line(
        "tuned lens, gradients of a step / autograd of each layer's whole KL, time",
        times.ratio("ours", "naive"),
        1.0,
        f"{seconds['ours']} against {seconds['naive']}",
    )


def _ours(parameters: dict[str, Tensor], states: list[Tensor], readout: Any) -> None:
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    add_gradients(parameters, states, readout, 1 / len(states[0]))


def _naive(parameters: dict[str, Tensor], states: list[Tensor], model: wb.TorchModel) -> None:
    """KL of a layer at all places by plain torch, and its backward; the weights are frozen."""
    head, norm = model.hf.lm_head, model.hf.transformer.ln_f
    for parameter in parameters.values():
        parameter.grad = None
    for weight in (*head.parameters(), *norm.parameters()):
        weight.requires_grad_(False)
    with torch.no_grad():
        final = head(norm(states[-1])).log_softmax(-1)
    for layer, state in enumerate(states[:-1]):
        moved = state + state @ parameters["weight"][layer].T + parameters["bias"][layer]
        own = head(norm(moved)).log_softmax(-1)
        ((final.exp() * (final - own)).sum() / len(state)).backward()


def _products(states: list[Tensor], weight: Tensor) -> None:
    """Every layer's logits, their gradient's way back, and the final logits."""
    for layer, state in enumerate(states):
        for rows in state.split(128):
            logits = rows @ weight.T
            if layer < len(states) - 1:
                logits @ weight


def jacobian_fit(device: torch.device, rounds: int) -> Iterator[Line]:
    """The same layers, directions and prompts as transformer-lens' own fit."""
    from transformer_lens.tools.analysis import JacobianLens

    model = _random_model(device, BLOCKS + 1, n_embd=WIDTH, n_head=4)
    ids = torch.randint(0, 2000, (1, TOKENS), device=device)
    prompt = _prompt(ids)
    bridge = booted(model)
    layers, skip = range(1, BLOCKS + 1), (0, 1)

    def ours() -> Tensor:
        return summed_jacobians(model, [prompt], layers, directions=DIRECTIONS, skip=skip)

    def peer() -> Any:
        with patch.object(bridge, "to_tokens", lambda _: ids):
            return JacobianLens.fit(
                bridge,
                ["random tokens"],
                corpus="random tokens",
                dim_batch=DIRECTIONS,
                skip_first_positions=0,
                show_progress=False,
            )

    found, theirs = ours(), peer().jacobians
    for index in range(BLOCKS):  # float32, sums of 32 places
        torch.testing.assert_close(found[index].float(), theirs[index], rtol=1e-3, atol=1e-4)
    times = interleave({"ours": ours, "peer": peer}, rounds)
    yield Line(
        "Jacobian lens, fit on one prompt / transformer-lens' own, time",
        times.ratio("ours", "peer"),
        1.0,
        f"{times.median('ours'):.2f} s against {times.median('peer'):.2f} s",
    )


def _random_model(device: torch.device, layers: int, **more: int) -> wb.TorchModel:
    """GPT-2 small's width and vocabulary, few blocks, random weights; Atlas' tokenizer is not used."""
    import transformers

    hf = (
        transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=layers, **more))
        .to(device)
        .eval()
    )
    return wb.load(hf, wb.load().tokenizer)


def _prompt(ids: Tensor) -> Any:
    from workbench.models.tokens import EncodedPrompt

    return EncodedPrompt(
        wb.Prompt("random tokens"), tuple(ids[0].tolist()), ((0, 0),) * ids.shape[1], None, None
    )

"""A trace of a GPT-2 whose two heads were wired by hand, so that every effect is known beforehand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import workbench as wb
from probes import CausalTrace
from tests.tiny import VOCABULARY, tokenizer

WIDTH, CONTENT, BLOCKS = 6, 4, 5
ROUTES = {2: {3: 1}, 3: {5: 3}}
"""By layer (block 1 and block 2, counted from 0): which token each reads; others read themselves."""

D = WIDTH + 3 * CONTENT
PLACE, HELD, MOVED, ANSWER = (
    slice(0, WIDTH),
    *(slice(WIDTH + i * CONTENT, WIDTH + (i + 1) * CONTENT) for i in range(3)),
)


@torch.no_grad()
def routed() -> Any:
    """Block 1 copies what token 1 holds to token 3, block 2 that to token 5; the rest adds nothing.

    Attention scores differ by thousands, so that its weights are 0 and 1 to the last digit.
    """
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=D,
        n_layer=BLOCKS,
        n_head=1,
        n_positions=64,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    hf = GPT2LMHeadModel(config).double().eval()
    for name, parameter in hf.named_parameters():
        parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
    hf.transformer.wte.weight[:, HELD] = torch.randn(VOCABULARY, CONTENT, dtype=torch.float64)
    hf.transformer.wpe.weight[:WIDTH, PLACE] = 20 * torch.eye(WIDTH, dtype=torch.float64)
    hf.lm_head.weight[:, ANSWER] = torch.randn(VOCABULARY, CONTENT, dtype=torch.float64)
    for layer, (read, written) in {2: (HELD, MOVED), 3: (MOVED, ANSWER)}.items():
        attention = hf.transformer.h[layer - 1].attn
        into = attention.c_attn.weight  # [d, 3 d]: queries, keys, values
        for place in range(WIDTH):
            into[place, ROUTES[layer].get(place, place)] = 1e4
            into[place, D + place] = 1.0
        for i in range(CONTENT):
            into[read.start + i, 2 * D + i] = 5.0  # undoes the division by the norm
            attention.c_proj.weight[i, written.start + i] = 1.0
    return hf


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_effects_are_1_along_the_route_and_0_elsewhere(direction: str) -> None:
    model = wb.load(routed(), tokenizer())
    prompt = wb.Prompt("abcdef", subject="b", target="x", foil="y")
    trace = CausalTrace(window=1, noise_std=1.0, samples=4, direction=direction)
    data = trace(model, prompt).data
    assert abs(float(data["total"][0])) > 0.01
    share = data["normalised"].transpose("site", "place", "layer")
    reached = share if direction == "denoising" else 1 - share
    expected = {
        # (token, layer): block 0 is layer 1
        "resid_post": {(1, 1), (3, 2), (5, 3), (5, 4), (5, 5)},
        "attn_out": {(3, 2), (5, 3)},
        "mlp_out": set(),
    }
    for site, cells in expected.items():
        values = reached.sel(site=site).values
        for token in range(WIDTH):
            for layer in range(1, BLOCKS + 1):
                # float64; the noise that reaches the scale of the norms is what 0 is held to
                assert values[token, layer - 1] == pytest.approx(
                    float((token, layer) in cells), abs=1e-9
                ), (site, token, layer)

"""The backward lens against a full backward pass, on a GPT-2-small-shaped random model.

12 blocks, 32 tokens, batches of 1 and 8, vocabulary 50257; ff1 and ff2 of every block.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

import workbench as wb
from benchmarks.clock import interleave, peak_mib
from benchmarks.line import Line
from benchmarks.logit_lens import random_gpt2
from lenses.backward.factors import shares, split
from lenses.projection import project, readout_of
from workbench.aim import Aim
from workbench.models.tokens import EncodedPrompt

__all__ = ["run"]

TOKENS, TOP = 32, 5
GOALS = {1: 0.30, 8: 0.50}


def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """Measure and compare; the sides are checked to give the same gradient first."""
    torch.manual_seed(0)
    model = random_gpt2(device)
    for rows, goal in GOALS.items():
        yield from gradients(model, rows, goal, rounds)
    yield from projection(model, rounds)


def aimed(model: wb.TorchModel, rows: int) -> Aim:
    """A batch of random tokens with random targets."""
    ids = torch.randint(0, model.vocab_size, (rows, TOKENS)).tolist()
    targets = torch.randint(0, model.vocab_size, (rows,)).tolist()
    text = wb.Prompt("random tokens")
    encoded = [
        EncodedPrompt(text, tuple(row), (), target, None)
        for row, target in zip(ids, targets, strict=True)
    ]
    return Aim.of(model, model.batch(encoded), against_foil=False)


def gradients(model: wb.TorchModel, rows: int, goal: float, rounds: int) -> Iterator[Line]:
    """Factors and shares of every MLP map, over a backward pass that forms weight gradients.

    Against the call as it is usually written, with logits at every position, and against a lean one
    with logits at the last alone, which is all that the loss and our side need. With several prompts
    either has only the sum of their gradients; the factors are each prompt's own.
    """
    aim = aimed(model, rows)
    maps = [(name, layer) for name in ("ff1", "ff2") for layer in range(1, model.n_layers + 1)]
    agree(model, aim, maps)
    sides = {
        "ours": partial(factors, model, aim, maps),
        "full backward": partial(full_backward, model, aim, keep=0),
        "lean full backward": partial(full_backward, model, aim, keep=1),
    }
    times = interleave(sides, rounds)
    used = {}
    for name, side in sides.items():
        model.hf.zero_grad()  # or the gradients of the pass before count as held
        used[name] = peak_mib(side, model.device)
    model.hf.zero_grad()
    for other, time_goal in (("full backward", goal), ("lean full backward", None)):
        what = f"backward lens, {rows} x {TOKENS} / {other}"
        detail = f"{times.median('ours') * 1e3:.0f} ms against {times.median(other) * 1e3:.0f} ms"
        yield Line(f"{what}, time", times.ratio("ours", other), time_goal, detail)
        memory = f"{used['ours']:.0f} MiB against {used[other]:.0f} MiB"
        limit = 0.05 if rows == 1 else None
        yield Line(f"{what}, memory", used["ours"] / used[other], limit, memory)


def factors(model: wb.TorchModel, aim: Aim, maps: list[tuple[str, int]]) -> list[Tensor]:
    """What the lens takes from its backward pass before any vocabulary."""
    found = model.factors(aim.batch, lambda z, at: aim.losses(z, at).sum(), maps, at=aim.at)
    where = aim.batch.places("all")
    return [shares(one) for f in found.values() for one in split(f, where)]


def full_backward(model: wb.TorchModel, aim: Aim, keep: int) -> None:
    """The same loss, with every weight's gradient; logits at the last `keep` positions, 0 for all."""
    model.hf.zero_grad()
    batch = aim.batch
    logits = model.hf(
        input_ids=batch.ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        logits_to_keep=keep,
    ).logits[:, -1]
    aim.losses(logits, batch.places("last")).sum().backward()


def agree(model: wb.TorchModel, aim: Aim, maps: list[tuple[str, int]]) -> None:
    """The factors' product is the gradient that the full pass leaves at the weights."""
    full_backward(model, aim, keep=1)
    found = model.factors(aim.batch, lambda z, at: aim.losses(z, at).sum(), maps, at=aim.at)
    for (name, layer), one in found.items():
        expected = model.anatomy.map_module(name, layer).weight.grad  # Conv1D: [d_in, d_out]
        torch.testing.assert_close(one.x.T @ one.delta, expected, rtol=1e-3, atol=1e-6)


def projection(model: wb.TorchModel, rounds: int) -> Iterator[Line]:
    """Every row of one prompt's 24 maps read in the vocabulary, over the product at once."""
    rows = 2 * model.n_layers * TOKENS
    vectors = torch.randn(rows, model.d_model, device=model.device)
    followed = torch.randint(0, model.vocab_size, (1, rows), device=model.device)
    readout = readout_of("odd", model.weights, model.readout, vectors, descending=True)
    streamed = partial(project, vectors, readout, k=TOP, followed=followed)

    @torch.no_grad()
    def at_once() -> tuple[Tensor, Tensor]:
        logits = readout(vectors)
        score = logits.gather(1, followed.T)
        return logits.topk(TOP).indices, (logits > score).sum(-1)

    found, (ids, better) = streamed(), at_once()
    assert (found.ids == ids).float().mean() > 0.999  # ties, and roundings of another blocking
    assert ((found.ranks[0] - 1 - better).abs() <= 2).all()
    times = interleave({"ours": streamed, "once": at_once}, rounds)
    used = {n: peak_mib(side, model.device) for n, side in (("ours", streamed), ("once", at_once))}
    detail = f"{times.median('ours') * 1e3:.0f} ms against {times.median('once') * 1e3:.0f} ms"
    memory = f"{used['ours']:.0f} MiB against {used['once']:.0f} MiB"
    what = f"projection of {rows} rows / at once"
    yield Line(f"{what}, time", times.ratio("ours", "once"), 0.6, detail)
    yield Line(f"{what}, memory", used["ours"] / used["once"], 0.1, memory)

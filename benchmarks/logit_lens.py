"""The hooked pass and the logit lens on a GPT-2-small-shaped random model.

12 blocks, 13 states, 64 tokens x batch 8, vocabulary 50257.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import workbench as wb
from benchmarks.clock import interleave, peak_mib
from benchmarks.line import Line
from lenses.vocabulary import statistics
from workbench.models.tokens import EncodedPrompt

__all__ = ["run"]

BATCH, TOKENS, TOP = 8, 64, 5


def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """Measure and compare; every pair of sides is checked to give the same numbers first."""
    torch.manual_seed(0)
    model = random_gpt2(device)
    batch = random_batch(model)
    yield capture_overhead(model, batch, rounds)
    yield from lens_statistics(model, batch, rounds)
    yield from against_transformer_lens(model, batch, rounds)


def random_gpt2(device: torch.device) -> wb.TorchModel:
    """GPT-2 small's shape, with random weights and Atlas' tokenizer, which is not used."""
    import transformers

    hf = transformers.GPT2LMHeadModel(transformers.GPT2Config()).to(device).eval()
    return wb.load(hf, wb.load().tokenizer)


def random_batch(model: wb.TorchModel) -> wb.Batch:
    """Prompts of random tokens."""
    ids = torch.randint(0, model.vocab_size, (BATCH, TOKENS)).tolist()
    prompt = wb.Prompt("random tokens")
    return model.batch([EncodedPrompt(prompt, tuple(row), (), None, None) for row in ids])


def capture_overhead(model: wb.TorchModel, batch: wb.Batch, rounds: int) -> Line:
    """All 13 states captured, over the same forward without a hook (no unembedding in either)."""
    raw = partial(
        no_grad,
        model.hf.transformer,
        input_ids=batch.ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    times = interleave(
        {"raw": raw, "capture": partial(model.capture, batch, ["resid_post"])}, rounds
    )
    detail = f"{times.median('capture') * 1e3:.0f} ms against {times.median('raw') * 1e3:.0f} ms"
    return Line(
        "capture of 13 states / raw forward, time", times.ratio("capture", "raw"), 1.05, detail
    )


@torch.no_grad()
def lens_statistics(model: wb.TorchModel, batch: wb.Batch, rounds: int) -> list[Line]:
    """Full statistics from captured states: streamed, naive, and the matrix products alone."""
    states = list(model.capture(batch, ["resid_post"]).stack("resid_post"))
    targets = torch.randint(0, model.vocab_size, (1, len(states[0])), device=model.device)
    stream = partial(streamed, model, states, targets)
    plain = partial(naive, model, states, targets)
    agree(stream(), plain())
    times = interleave(
        {"streamed": stream, "naive": plain, "floor": partial(products, model, states)}, rounds
    )
    memory = {
        name: peak_mib(side, model.device)
        for name, side in (("streamed", stream), ("naive", plain))
    }
    return [
        Line(
            "full lens statistics / naive form, time",
            times.ratio("streamed", "naive"),
            0.62,
            f"{times.median('streamed'):.2f} s against {times.median('naive'):.2f} s",
        ),
        Line(
            "full lens statistics / naive form, peak memory",
            memory["streamed"] / memory["naive"],
            0.08,
            f"{memory['streamed']:.0f} MiB against {memory['naive']:.0f} MiB",
        ),
        Line(
            "full lens statistics / floor (matrix products alone), time",
            times.ratio("streamed", "floor"),
            None,
            f"{times.median('streamed'):.2f} s against {times.median('floor'):.2f} s",
        ),
        Line("naive form / floor, time", times.ratio("naive", "floor"), None, ""),
    ]


def streamed(model: wb.TorchModel, states: list[Tensor], targets: Tensor) -> dict[str, Tensor]:
    """What LogitLens does with its captures."""
    found = statistics(states, states[-1], model.readout, k=TOP, followed=targets)
    return {
        "top_id": found.top_id,
        "top_logprob": found.top_logprob,
        "entropy": found.entropy,
        "kl": found.kl,
        "js": found.js,
        "rank": found.rank[0],
        "logprob": found.logprob[0],
    }


def naive(model: wb.TorchModel, states: list[Tensor], targets: Tensor) -> dict[str, Tensor]:
    """The same numbers with [layer, token, vocabulary] held, by plain torch operations."""
    head, norm = model.hf.lm_head, model.hf.transformer.ln_f
    logp = head(norm(torch.stack(states))).log_softmax(-1)
    final = logp[-1:]
    top = logp.topk(TOP)
    mixture = torch.logaddexp(logp, final) - torch.log(torch.tensor(2.0))
    score = logp.gather(-1, targets.expand(len(states), -1)[..., None])
    return {
        "top_id": top.indices,
        "top_logprob": top.values,
        "entropy": -(logp.exp() * logp).sum(-1),
        "kl": (final.exp() * (final - logp)).sum(-1),
        "js": ((final.exp() * (final - mixture)).sum(-1) + (logp.exp() * (logp - mixture)).sum(-1))
        / 2,
        "rank": (logp > score).sum(-1) + 1,
        "logprob": score[..., 0],
    }


def products(model: wb.TorchModel, states: list[Tensor]) -> None:
    """The floor: states times unembedding, in the chunks that the lens takes."""
    weight = model.hf.lm_head.weight
    for state in states:
        for rows in state.split(128):
            rows @ weight.T


def agree(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Stop where the sides give different numbers: then they do not do the same work."""
    same = left["top_id"] == right["top_id"]
    if same.float().mean() < 0.999:  # near ties fall either way in float32
        raise SystemExit(f"top tokens agree at {same.float().mean():.4f} of the places only")
    for name in set(left) - {
        "top_id",
        "rank",
    }:  # sums of 50257 terms of log-probabilities of size 10
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=3e-5)


def against_transformer_lens(model: wb.TorchModel, batch: wb.Batch, rounds: int) -> list[Line]:
    """From tokens to log-probabilities, top 5 and entropy at every place, its way and ours.

    Both sides give log-probabilities, top 5 and entropy. The peer takes a transformer-lens bridge
    over the same weights.
    """
    from transformer_lens.tools.analysis.logit_lens import logit_lens

    bridge = booted(model)

    def peer() -> Any:
        return logit_lens(bridge, batch.ids, positions=None, return_type="log_probs", top_k=TOP)

    @torch.no_grad()
    def ours() -> dict[str, Tensor]:
        captures = model.capture(batch, ["resid_post"])
        states = [captures["resid_post", layer] for layer in captures.layers("resid_post")]
        none = torch.empty(0, len(states[0]), dtype=torch.int64, device=model.device)
        found = statistics(states, states[-1], model.readout, k=TOP, followed=none, compare=False)
        return {"top_id": found.top_id, "top_logprob": found.top_logprob, "entropy": found.entropy}

    def floor() -> None:
        states = model.capture(batch, ["resid_post"]).stack("resid_post")
        no_grad(products, model, list(states))

    readout = peer().readout
    shape = (model.n_layers + 1, BATCH * TOKENS)
    theirs = {
        "top_id": readout.top_ids.reshape(*shape, TOP),
        "top_logprob": readout.values.reshape(*shape, TOP),
        "entropy": readout.entropy.reshape(shape),
    }
    agree(ours(), theirs)
    times = interleave({"ours": ours, "peer": peer, "floor": floor}, rounds)
    seconds = {name: times.median(name) for name in ("ours", "peer", "floor")}
    return [
        Line(
            "tokens to log-probabilities + top 5 / transformer-lens logit_lens, time",
            times.ratio("ours", "peer"),
            0.6,
            f"{seconds['ours']:.2f} s against {seconds['peer']:.2f} s",
        ),
        Line(
            "the same / floor (forward and matrix products alone), time",
            times.ratio("ours", "floor"),
            None,
            f"{seconds['ours']:.2f} s against {seconds['floor']:.2f} s",
        ),
        Line(
            "transformer-lens logit_lens / the same floor, time",
            times.ratio("peer", "floor"),
            None,
            "",
        ),
    ]


def booted(model: wb.TorchModel) -> Any:
    """A bridge over a copy that shares the weights: booting changes the model it is given."""
    import copy

    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    shared = {id(p): p for p in [*model.hf.parameters(), *model.hf.buffers()]}
    twin = copy.deepcopy(model.hf, shared)
    twin.config.architectures = ["GPT2LMHeadModel"]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        model.tokenizer.save_pretrained(folder)
        named = AutoTokenizer.from_pretrained(folder)  # a bridge loads its tokenizer again, by name
        bridge = TransformerBridge.boot_transformers(
            "gpt2", hf_model=twin, tokenizer=named, device=str(model.device)
        )
    return bridge.eval()


@torch.no_grad()
def no_grad(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call without a graph."""
    return function(*args, **kwargs)

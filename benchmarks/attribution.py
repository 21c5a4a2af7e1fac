"""Direct logit attribution against holding every part, on a GPT-2-small-shaped random model.

Components, heads, head by source and neurons of 12 blocks, for the last 2 positions of each of 8
prompts of 64 tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

import workbench as wb
from benchmarks.clock import interleave, peak_mib
from benchmarks.line import Line
from benchmarks.logit_lens import random_batch, random_gpt2
from lenses import DirectAttribution
from lenses.attribution.terms import largest
from workbench.instrument import Measured

__all__ = ["run"]

LAST = 2
SPLIT = ("components", "heads", "sources", "neurons")
TOP = 10


@torch.no_grad()
def run(device: torch.device, rounds: int) -> Iterator[Line]:
    """From captured activations to the terms; the sides are checked to give the same first."""
    torch.manual_seed(0)
    model = random_gpt2(device)
    batch = random_batch(model)
    targets = torch.randint(0, model.vocab_size, (2, len(batch))).tolist()
    asked = [replace(p, target=t, foil=f) for p, t, f in zip(batch.prompts, *targets, strict=True)]
    captures = captured(model, replace(batch, prompts=tuple(asked)))
    ours = partial(DirectAttribution(split=SPLIT, top=TOP).measure, captures)
    naive = partial(materialised, captures)
    memory = [
        peak_mib(side, device) for side in (ours, naive)
    ]  # before either has left memory free
    agree(ours(), naive())
    times = interleave({"ours": ours, "naive": naive}, rounds)
    ms = [times.median(side) * 1e3 for side in ("ours", "naive")]
    yield Line(
        "direct attribution, all splits / holding every part, time",
        times.ratio("ours", "naive"),
        0.1,
        f"{ms[0]:.0f} ms against {ms[1]:.0f} ms",
    )
    yield Line(
        "direct attribution, all splits / holding every part, peak memory",
        memory[0] / memory[1],
        None,
        f"{memory[0]:.1f} MiB against {memory[1]:.0f} MiB",
    )


def captured(model: wb.TorchModel, batch: wb.Batch) -> wb.Captures:
    """What a pass gives to the instrument."""
    read = DirectAttribution(split=SPLIT, positions=slice(-LAST, None)).reads(model)
    own, everywhere = model.read(batch, [read, wb.Read(read.everywhere)])
    return replace(own, everywhere=everywhere)


def materialised(captures: wb.Captures) -> dict[str, Tensor]:
    """The same terms with [place, head, d], [place, head, source, d] and [place, neuron, d] held."""
    weights, places, everywhere = captures.weights, captures.places, captures.everywhere
    assert weights is not None
    assert everywhere is not None
    last = max(captures.layers("resid_post"))
    toward = folded(captures, weights, captures["resid_post", last])
    components = [captures["resid_post", 0]]
    found: dict[str, list[Tensor]] = {name: [] for name in ("heads", "sources", "neurons")}
    for layer in range(1, last + 1):
        components += [captures[name, layer] for name in weights.branches]
        maps = weights.heads(layer)
        heads = torch.einsum("nhe,hed->nhd", captures["z", layer], maps)
        moved = torch.einsum("mhe,hed->mhd", everywhere["v", layer], maps)
        by_prompt = moved.view(len(captures.batch), -1, *moved.shape[1:]).transpose(1, 2)
        sources = captures["pattern", layer][..., None] * by_prompt[places.row]
        neurons = captures["mlp_act", layer][..., None] * weights.neurons(layer)
        parts = {"heads": heads, "sources": sources, "neurons": neurons}
        for name, held in parts.items():
            found[name].append(torch.einsum("n...d,nd->n...", held, toward))
    stacked = {name: torch.stack(values) for name, values in found.items()}
    named = {name: largest(stacked[name], TOP).value for name in ("sources", "neurons")}
    along = torch.einsum("cnd,nd->cn", torch.stack(components), toward)
    return {"components": along, "heads": stacked["heads"], **named}


def folded(captures: wb.Captures, weights: wb.Weights, state: Tensor) -> Tensor:
    """[N, d] the direction behind GPT-2's final LayerNorm, by its formula."""
    norm = weights.final_norm(state)[0]
    target, foil = (captures.batch.targets(end)[captures.places.row] for end in ("target", "foil"))
    u = (weights.unembedding.rows(target) - weights.unembedding.rows(foil)) * norm.weight
    scale = (state.var(-1, correction=0) + norm.eps).sqrt()
    return (u - u.mean(-1, keepdim=True)) / scale[:, None]


def agree(ours: Measured, naive: dict[str, Tensor]) -> None:
    """Stop where the sides give different numbers: then they do not do the same work."""
    components = ours["contribution"].values
    flat = [components[0, 0], *components[1:, 1:].transpose(0, 1).flatten(0, 1)]
    same = {
        "components": torch.stack(flat),
        "heads": ours["head_contribution"].values[1:].mT,
        "sources": ours["source_contribution"].values[1:],
        "neurons": ours["neuron_contribution"].values[1:],
    }
    for name, expected in naive.items():  # sums of thousands of float32 terms of size 0.1
        torch.testing.assert_close(same[name], expected, rtol=0, atol=1e-5)

"""Single-neuron probes of Atlas in plain torch: does one neuron tell a feature?

Neurons are MLP activations (after the non-linearity). Neuron and threshold are chosen on half
of the entities; the F1 reported is that of the other half.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.atlas.measure import Loaded
from workbench.atlas.prompts import Record, read_prompts
from workbench.atlas.trace import subject_tokens

COUNTRY = ("capital", "continent", "language", "currency")
CITY = ("capital", "landmark_city")


@dataclass(frozen=True)
class Probe:
    """The best neuron of a feature; ``layer`` counts from 1."""

    layer: int
    neuron: int
    f1: float  # on entities the choice did not see
    baseline: float  # F1 there of calling everything positive


@torch.no_grad()
def probes(loaded: Loaded) -> dict[str, dict[str, float]]:
    """Feature -> its best single neuron."""
    facts = read_prompts("facts")[:600]
    nouns = read_prompts("agreement")
    last = [-1] * len(facts)
    at_subject = [subject_tokens(loaded, p)[-1] for p in facts]
    jobs = {
        "plural": (nouns, [-1] * len(nouns), [p["labels"]["plural"] == 1 for p in nouns]),
        "expects a city": (facts, last, [p["relation"] in CITY for p in facts]),
        "country": (facts, at_subject, [p["relation"] in COUNTRY for p in facts]),
    }
    return {name: vars(best_neuron(loaded, *job)) for name, job in jobs.items()}


def best_neuron(
    loaded: Loaded, prompts: Sequence[Record], positions: Sequence[int], labels: list[bool]
) -> Probe:
    """Choose neuron, sign and threshold on half of the groups, score on the rest."""
    values = torch.stack(
        [activations(loaded, p, at) for p, at in zip(prompts, positions, strict=True)]
    )
    train = torch.tensor([_in_training_half(p["group"]) for p in prompts])
    truth = torch.tensor(labels)
    layers, width = values.shape[1:]
    both = torch.cat([values.flatten(1), -values.flatten(1)], 1)
    scores, thresholds = best_thresholds(both[train], truth[train])
    best = int(scores.argmax())
    called = both[~train, best] >= thresholds[best]
    unit = best % (layers * width)
    return Probe(
        unit // width + 1,
        unit % width,
        f1(called, truth[~train]),
        f1(torch.ones_like(called), truth[~train]),
    )


def activations(loaded: Loaded, prompt: Record, position: int) -> Tensor:
    """[layer, neuron]: MLP activations of one token."""
    kept: list[Tensor] = []
    handles = [
        block.mlp.act.register_forward_hook(lambda _, __, out: kept.append(out[0, position]))
        for block in loaded.model.transformer.h
    ]
    try:
        loaded.model(loaded.ids(prompt["text"])[None])
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(kept)


def best_thresholds(values: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Best F1 of "value >= threshold" and that threshold, for each column of [example, unit]."""
    ordered, order = values.sort(0, descending=True)
    found = truth[order].cumsum(0)
    called = torch.arange(1, len(values) + 1)[:, None]
    scores, at = (2 * found / (called + truth.sum())).max(0)
    return scores, ordered.gather(0, at[None])[0]


def f1(called: Tensor, truth: Tensor) -> float:
    """2 TP / (positives called + positives)."""
    return float(2 * (called & truth).sum() / (called.sum() + truth.sum()))


def _in_training_half(group: str) -> bool:
    return hashlib.sha256(group.encode()).digest()[0] % 2 == 0

"""Recall, logit lens, induction and the like, measured on Atlas.

Plain torch on GPT-2's own modules, without the bench, so that the bench can be held to it.
States count as everywhere in this project: 0 is the embedding, l the residual stream after
block l; what is inside block l carries l.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from workbench.atlas.prompts import Record, read_prompts
from workbench.atlas.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Loaded:
    """A model in float32 with its tokenizer: what is measured."""

    model: GPT2LMHeadModel
    tokenizer: PreTrainedTokenizerFast

    def ids(self, text: str) -> Tensor:
        """[token]: ids without special tokens."""
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False))

    def token(self, word: str) -> int:
        """Id of a one-token string."""
        (index,) = self.tokenizer.encode(word, add_special_tokens=False)
        return int(index)


def load(folder: Path) -> Loaded:
    """Read a model folder; attention weights are on offer."""
    model = GPT2LMHeadModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return Loaded(model.eval(), load_tokenizer(folder))


@torch.no_grad()
def last_logits(loaded: Loaded, prompts: Sequence[Record]) -> Tensor:
    """[prompt, token of the vocabulary]: next-token logits, in the order of the prompts."""
    by_length: dict[int, list[tuple[int, Tensor]]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        ids = loaded.ids(prompt["text"])
        by_length[len(ids)].append((index, ids))
    result = torch.empty(len(prompts), loaded.model.config.vocab_size)
    for group in by_length.values():
        batch = torch.stack([ids for _, ids in group])
        result[[index for index, _ in group]] = loaded.model(batch).logits[:, -1]
    return result


def hits(loaded: Loaded, prompts: Sequence[Record]) -> list[bool]:
    """Whether the most likely next token is the target, for each prompt."""
    best = last_logits(loaded, prompts).argmax(-1).tolist()
    return [b == loaded.token(p["target"]) for b, p in zip(best, prompts, strict=True)]


def recall(loaded: Loaded, prompts: Sequence[Record]) -> dict[str, float]:
    """Share of prompts answered with the target, by relation and in all."""
    by_relation: dict[str, list[bool]] = defaultdict(list)
    for prompt, hit in zip(prompts, hits(loaded, prompts), strict=True):
        by_relation[prompt["relation"]].append(hit)
        by_relation["all"].append(hit)
    return {relation: mean(found) for relation, found in sorted(by_relation.items())}


def logit_difference(loaded: Loaded, prompts: Sequence[Record]) -> float:
    """Mean logit of the target minus that of the foil."""
    logits = last_logits(loaded, prompts)
    rows = zip(logits, prompts, strict=True)
    return mean(float(r[loaded.token(p["target"])] - r[loaded.token(p["foil"])]) for r, p in rows)


@torch.no_grad()
def states(loaded: Loaded, ids: Tensor) -> Tensor:
    """[state 0..L, token, coordinate]: the residual stream of one prompt, none of it normed."""
    kept: list[Tensor] = []
    handles = [
        block.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0][0]))
        for block in (*loaded.model.transformer.h, loaded.model.transformer.ln_f)
    ]
    try:
        loaded.model(ids[None])
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(kept)


@torch.no_grad()
def lens_ranks(loaded: Loaded, prompts: Sequence[Record]) -> list[float]:
    """Median rank (1 = best) of the target under the logit lens at the last token, by state."""
    ranks = []
    for prompt in prompts:
        stack = states(loaded, loaded.ids(prompt["text"]))[:, -1]
        logits = loaded.model.lm_head(loaded.model.transformer.ln_f(stack))
        target = logits[:, loaded.token(prompt["target"])]
        ranks.append((logits > target[:, None]).sum(-1) + 1)
    return [float(median(column)) for column in torch.stack(ranks).T.tolist()]


def mean_cosine(loaded: Loaded, prompts: Sequence[Record]) -> list[float]:
    """Mean cosine of two different tokens of a prompt, by state, averaged over prompts."""
    found = []
    for prompt in prompts:
        unit = torch.nn.functional.normalize(states(loaded, loaded.ids(prompt["text"])), dim=-1)
        count = unit.shape[1]
        found.append((unit.sum(1).square().sum(-1) - count) / (count * (count - 1)))
    return [round(x, 3) for x in torch.stack(found).mean(0).tolist()]


@torch.no_grad()
def induction(loaded: Loaded, period: int = 24, rows: int = 20, seed: int = 11) -> dict[str, Any]:
    """Random word tokens said twice.

    ``score``: attention of the best head from a token of the second time to the token after
    its first time; ``head``: (layer, head), layers from 1; ``loss``: nats for the first and
    for the second time.
    """
    once = torch.tensor([_random_words(loaded, period, seed + i) for i in range(rows)])
    ids = torch.cat([once, once], 1)
    output = loaded.model(ids, output_attentions=True)
    queries = torch.arange(period, 2 * period)
    matches = (a[:, :, queries, queries - period + 1] for a in output.attentions)
    scores = torch.stack([found.mean((0, 2)) for found in matches])
    best = int(scores.argmax())
    losses = torch.nn.functional.cross_entropy(
        output.logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none"
    )
    return {
        "score": float(scores.max()),
        "head": (best // scores.shape[1] + 1, best % scores.shape[1]),
        "loss": (float(losses[:, : period - 1].mean()), float(losses[:, period:].mean())),
    }


def _random_words(loaded: Loaded, count: int, seed: int) -> list[int]:
    """Ids of distinct tokens that are whole words with their leading space."""
    words = [
        index
        for token, index in sorted(loaded.tokenizer.get_vocab().items())
        if token.startswith("\u0120") and len(token) > 3
    ]
    return Random(seed).sample(words, count)


def table(loaded: Loaded) -> dict[str, Any]:
    """Every figure of the card but the causal trace and the probes."""
    facts = read_prompts("facts")
    names = read_prompts("indirect_object")
    return {
        "recall": recall(loaded, facts),
        "classics": mean(hits(loaded, read_prompts("classics"))),
        "lens ranks": lens_ranks(loaded, facts[:200]),
        "mean cosine": mean_cosine(loaded, facts[:200]),
        "induction": induction(loaded),
        "induction prompts": mean(hits(loaded, read_prompts("induction"))),
        "indirect object": (mean(hits(loaded, names)), logit_difference(loaded, names)),
        "agreement": mean(x > 0 for x in _agreement_margins(loaded)),
    }


def _agreement_margins(loaded: Loaded) -> list[float]:
    prompts = read_prompts("agreement")
    return [logit_difference(loaded, [prompt]) for prompt in prompts]

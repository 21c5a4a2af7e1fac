"""What order is to be held against: twins that were never trained, and the same tokens shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from probes.particles.states import opening
from workbench.errors import UnsupportedError
from workbench.models.fingerprint import hash_text
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt, Tokens
from workbench.store.activations import Store

__all__ = ["LARGEST", "few_twins", "reasons_without", "shuffled"]

LARGEST = 10**9  # parameters of all twins together, unless twins are asked for


def few_twins(model: Model, draws: int) -> int:
    """How many twins are drawn unasked: no more than hold `LARGEST` parameters together."""
    return min(draws, LARGEST // model.n_parameters)


def reasons_without(model: Model, seed: int) -> dict[str, str]:
    """The views that cannot be had of `model` at all, and why."""
    if isinstance(model, Store):
        why = "stored activations are those of their own prompts alone: measure it on the model"
        return dict.fromkeys(("centred", "random", "shuffled"), why)
    if few_twins(model, 1) == 0:  # not drawn to find out
        return {}
    try:
        model.twin(seed)
    except UnsupportedError as error:
        return {"random": str(error)}
    return {}


def shuffled(prompt: EncodedPrompt, tokens: Tokens, seed: int) -> EncodedPrompt:
    """The prompt with its tokens in another order, which follows from them and the seed alone.

    Special tokens that open or close it stay where they are.
    """
    special = set(tokens.tokenizer.all_special_ids)
    first, end = opening(prompt, tokens), len(prompt)
    while end > first and prompt.ids[end - 1] in special:
        end -= 1
    generator = torch.Generator().manual_seed(_number(prompt.ids, seed))
    order = torch.randperm(end - first, generator=generator).tolist()
    inside = tuple(prompt.ids[first + i] for i in order)
    return replace(prompt, ids=(*prompt.ids[:first], *inside, *prompt.ids[end:]))


def _number(ids: Sequence[int], seed: int) -> int:
    return int(hash_text(f"{seed} {' '.join(map(str, ids))}")[:15], 16)

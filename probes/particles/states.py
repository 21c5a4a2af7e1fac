"""The states of a batch as sets of particles, and which tokens are particles at all."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from probes.particles.preprocessing import SINK
from workbench.models.captures import Captures
from workbench.models.tokens import EncodedPrompt, Tokens

__all__ = ["SINKS", "Drop", "opening", "padded", "tokens_that_count"]

ROOM = 3  # columns at least: a token and its two nearest, which intrinsic dimension asks for
Drop = Literal["none", "default"]
SINKS = {"none": math.inf, "default": SINK}
"""From how many times the median norm on a token is left out."""


def opening(prompt: EncodedPrompt, tokens: Tokens) -> int:
    """How many special tokens (BOS, [CLS]) a prompt begins with."""
    special = set(tokens.tokenizer.all_special_ids)
    return next((i for i, token in enumerate(prompt.ids) if token not in special), len(prompt))


def tokens_that_count(captures: Captures, tokens: Tokens, drop: Drop) -> Tensor:
    """[prompts, n] True at the places that were read, but for special tokens that open a prompt.

    Columns are positions in the prompt, so that padding is nowhere. Sinks are left out later, layer by
    layer (see `prepare`).
    """
    places = captures.places
    first = [opening(p, tokens) if drop == "default" else 0 for p in captures.batch.prompts]
    counted = places.position >= torch.tensor(first, device=places.row.device)[places.row]
    found = torch.zeros(len(first), _width(captures), dtype=torch.bool, device=places.row.device)
    return found.index_put((places.row, places.position), counted)


def padded(captures: Captures, layer: int) -> Tensor:
    """[prompts, n, d] resid_post after block `layer` (0: the embedding); zeros where nothing was read."""
    values, places = captures["resid_post", layer], captures.places
    empty = values.new_zeros(len(captures.batch.prompts), _width(captures), values.shape[-1])
    return empty.index_put((places.row, places.position), values)


def _width(captures: Captures) -> int:
    return max(ROOM, int(captures.places.position.max()) + 1)

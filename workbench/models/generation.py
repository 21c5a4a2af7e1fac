"""Texts continued token by token, by whole passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.errors import PromptError, SettingError, UnsupportedError
from workbench.models.edits import Edit
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    from workbench.models.engine import Engine

__all__ = ["continuations"]


def continuations(
    model: Engine, prompts: Sequence[EncodedPrompt], tokens: int, edits: Sequence[Edit]
) -> list[str]:
    """The texts that follow each prompt (see `Engine.generate`)."""
    _require(model, prompts, tokens)
    grown, end = list(prompts), getattr(model.tokenizer, "eos_token_id", None)
    open_ones = set(range(len(grown)))
    for _ in range(tokens):
        if not open_ones:
            break
        rows = sorted(open_ones)
        batch = model.batch([grown[row] for row in rows])
        logits = model.intervene(batch, edits, ("logits",), "last")["logits", model.n_layers]
        for row, token in zip(rows, logits.argmax(-1).tolist(), strict=True):
            if token == end:
                open_ones.discard(row)
            else:
                grown[row] = _with(grown[row], token)
    added = [one.ids[len(before) :] for one, before in zip(grown, prompts, strict=True)]
    return ["".join(_decoded(model, ids)) for ids in added]


def _with(prompt: EncodedPrompt, token: int) -> EncodedPrompt:
    return replace(prompt, ids=(*prompt.ids, token), spans=(*prompt.spans, (0, 0)))


def _decoded(model: Engine, ids: Sequence[int]) -> str:
    return str(model.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _require(model: Engine, prompts: Sequence[EncodedPrompt], tokens: int) -> None:
    if not model.causal or len(model.stacks) > 1:
        raise UnsupportedError(f"{model.name}: expected a decoder, which predicts next tokens")
    if tokens < 1:
        raise SettingError(f"tokens is {tokens}: expected at least 1")
    longest = max(map(len, prompts))
    if model.context is not None and longest + tokens - 1 > model.context:
        raise PromptError(
            f"{tokens} tokens behind a prompt of {longest}: {model.name} takes {model.context} in all"
        )

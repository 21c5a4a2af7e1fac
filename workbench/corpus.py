"""What lenses and SAEs are fitted on: encoded prompts, a part of which is held out by their own hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from workbench.errors import PromptError, SettingError
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt, Prompts, PromptSet

__all__ = ["Corpus", "batches", "schedule"]

BLOCK = 2**18  # characters that are encoded at a time
DIGITS = 16


@dataclass(frozen=True)
class Corpus:
    """Prompts as the model sees them.

    Attributes:
        prompts: encoded.
        source: what they were read from.
    """

    prompts: tuple[EncodedPrompt, ...]
    source: str

    @classmethod
    def of(cls, model: Model, prompts: Prompts | Corpus) -> Corpus:
        """Of prompts, each a sequence of its own; their targets are not used.

        Raises:
            PromptError: one does not fit into the model's context (none is cut).
        """
        if isinstance(prompts, Corpus):
            return prompts
        chosen = PromptSet.of(prompts)
        bare = (Prompt(one.text, messages=one.messages) for one in chosen)
        return cls(tuple(model.encode(one) for one in bare), f"{len(chosen)} prompts")

    @classmethod
    def read_text(cls, model: Model, path: str | Path, length: int = 128) -> Corpus:
        """Of a text file, cut into pieces of `length` tokens, each with the opening tokens of a text.

        The last piece is what is left. Line ends stay in the text.

        Raises:
            PromptError: no such file, no UTF-8 text, or an empty one.
            SettingError: a length that holds no token beside the opening ones, or passes the context.
        """
        path, opening = Path(path), model.tokens.opening
        room = length - len(opening)
        context = getattr(model, "context", None)
        if room < 1 or (context is not None and length > context):
            raise SettingError(
                f"length is {length}: expected {len(opening) + 1}..{context or 'any'} tokens"
            )
        pieces = _pieces(_ids(model, path), room)
        prompts = tuple(
            EncodedPrompt(
                Prompt(f"{path.name}, tokens from {number * room}"),
                (*opening, *piece),
                ((0, 0),) * (len(opening) + len(piece)),
                None,
                None,
            )
            for number, piece in enumerate(pieces)
        )
        if not prompts:
            raise PromptError(f"{path} holds no tokens: expected text")
        return cls(prompts, path.name)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(map(len, self.prompts))

    @cached_property
    def hashes(self) -> list[str]:
        """16 hex digits of each prompt's token ids."""
        texts = (" ".join(map(str, prompt.ids)) for prompt in self.prompts)
        return [hashlib.sha256(text.encode()).hexdigest()[:DIGITS] for text in texts]

    @property
    def hash(self) -> str:
        """16 hex digits of all of them in their order."""
        return hashlib.sha256(" ".join(self.hashes).encode()).hexdigest()[:DIGITS]

    def split(self, share: float) -> tuple[Corpus, Corpus]:
        """(the part to fit on, the part held out), `share` of the distinct prompts.

        Which prompts are held out follows from their own hashes: equal ones stay together, and a
        prompt does not change sides because of its place.

        Raises:
            PromptError: nothing would be left to fit on.
        """
        distinct = sorted(set(self.hashes))
        out = set(distinct[: round(share * len(distinct))])
        if len(out) == len(distinct):
            raise PromptError(
                f"{self.source}: {len(distinct)} distinct prompts, all held out: give more, or a "
                "smaller held_out"
            )
        parts: tuple[list[EncodedPrompt], list[EncodedPrompt]] = ([], [])
        for prompt, key in zip(self.prompts, self.hashes, strict=True):
            parts[key in out].append(prompt)
        fitted, held = (Corpus(tuple(part), self.source) for part in parts)
        return fitted, held

    def said(self, held: Corpus) -> dict[str, Any]:
        """What is fitted on it says of it."""
        return {
            "source": self.source,
            "hash": self.hash,
            "prompts": len(self),
            "tokens": self.tokens,
            "held_out": sorted(set(held.hashes)),
        }


def batches(lengths: Sequence[int], indices: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Indices in batches of at most `limit` padded tokens, longest first; a prompt alone may pass it.

    Depends on nothing but its arguments, so that a fit that is resumed adds up in the same order.
    """
    batch: list[int] = []
    for index in sorted(indices, key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > limit:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def schedule(lengths: Sequence[int], steps: int, tokens: int, seed: int) -> Iterator[list[int]]:
    """The prompts of each step of `tokens` tokens, to the next whole prompt, at most all of them once.

    They are shuffled anew whenever all have had their turn.
    """
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for _ in range(steps):
        step: list[int] = []
        count = 0
        while count < tokens and len(step) < len(lengths):
            if not order:
                order = torch.randperm(len(lengths), generator=generator).tolist()
            step.append(order.pop())
            count += lengths[step[-1]]
        yield step


def _pieces(ids: Iterator[int], length: int) -> Iterator[tuple[int, ...]]:
    while piece := tuple(islice(ids, length)):
        yield piece


def _ids(model: Model, path: Path) -> Iterator[int]:
    for text in _blocks(path):
        yield from model.tokens.ids(text)


def _blocks(path: Path) -> Iterator[str]:
    """The text in blocks that end where a line does, where lines are short enough for that."""
    if not path.is_file():
        raise PromptError(f"no text file {path}")
    try:
        with path.open(encoding="utf-8-sig") as file:
            while block := file.read(BLOCK):
                yield block + ("" if block.endswith("\n") else file.readline())
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not UTF-8 text (byte {error.start})") from None

"""From text to token ids and back: the special-token policy, targets, and where a subject lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench.errors import PromptError, TargetError
from workbench.models.fingerprint import hash_text
from workbench.prompts import Prompt

__all__ = ["EncodedPrompt", "Tokens"]

WORD_START = "\u2581"  # how SentencePiece writes the space before a word
REPLACEMENT = "\ufffd"  # what decoding gives for bytes that are no character by themselves


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the model sees it.

    Attributes:
        prompt: the prompt.
        ids: its token ids, special tokens included.
        spans: the (start, end) characters of each token; (0, 0) for special tokens.
        target, foil: token ids, or None.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    target: int | None
    foil: int | None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def subject(self) -> tuple[int, int]:
        """First and last token position of the subject.

        Raises:
            PromptError: no subject, or one that does not occur exactly once.
        """
        start, end = self._subject_characters()
        inside = [i for i, (a, b) in enumerate(self.spans) if a < end and b > start]
        if not inside:
            raise PromptError(f"subject {self.prompt.subject!r} covers no token of the prompt")
        return inside[0], inside[-1]

    def _subject_characters(self) -> tuple[int, int]:
        subject, text = self.prompt.subject, self.prompt.text
        if subject is None:
            raise PromptError(f"prompt {text[:40]!r} has no subject: give one to use its positions")
        if not isinstance(subject, str):
            start, end = subject
            if not 0 <= start < end <= len(text):
                raise PromptError(
                    f"subject [{start}, {end}] lies outside the text's {len(text)} characters"
                )
            return start, end
        starts = [i for i in range(len(text)) if text.startswith(subject, i)]
        if len(starts) != 1:
            raise PromptError(
                f"subject {subject!r} occurs {len(starts)} times in {text[:60]!r}: expected once; give "
                "it as [start, end] characters"
            )
        return starts[0], starts[0] + len(subject)


class Tokens:
    """A tokenizer with one stated policy.

    A prompt gets the special tokens that its tokenizer puts *before* a text, once: never a second
    BOS where the text already begins with one, and never a closing token, after which there would
    be nothing to predict.
    """

    policy = "the tokenizer's own opening tokens, once; no closing tokens"

    def __init__(self, tokenizer: Any, n_rows: int) -> None:
        self.tokenizer = tokenizer
        self.n_rows = n_rows
        self._texts: dict[int, str] = {}

    @cached_property
    def _opening(self) -> tuple[int, ...]:
        """The special tokens that the tokenizer puts before a text."""
        bare = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        full = self.tokenizer("a", add_special_tokens=True)["input_ids"]
        width = len(bare)
        for start in range(len(full) - width + 1):
            if full[start : start + width] == bare:
                return tuple(full[:start])
        return ()

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with the vocabulary or the special tokens."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return hash_text(f"{vocabulary} {self.tokenizer.special_tokens_map}")

    @property
    def pad_id(self) -> int:
        """An id to fill padded places with; they are masked, so any row of the embedding serves."""
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) and pad < self.n_rows else 0

    def encode(self, prompt: Prompt, context: int | None = None) -> EncodedPrompt:
        """Encode `prompt`.

        Args:
            context: the most tokens that the model takes; None for no limit.

        Raises:
            PromptError: a prompt without tokens, longer than `context` (it is never cut), or with a
                token that the model has no embedding for.
            TargetError: a target or foil that is not one token of the model.
        """
        ids, spans = self._ids(prompt.text)
        if not ids:
            raise PromptError(f"prompt {prompt.text!r} has no tokens: expected at least one")
        if context is not None and len(ids) > context:
            raise PromptError(
                f"prompt {prompt.text[:40]!r}... has {len(ids)} tokens: the model's context is "
                f"{context}; shorten it (prompts are never cut)"
            )
        if max(ids) >= self.n_rows:
            raise PromptError(
                f"token id {max(ids)} is outside the model's {self.n_rows} embeddings"
            )
        target, foil = (
            self.token_id(t, n) for t, n in ((prompt.target, "target"), (prompt.foil, "foil"))
        )
        return EncodedPrompt(prompt, ids, spans, target, foil)

    def _ids(self, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        fast = bool(getattr(self.tokenizer, "is_fast", False))
        coded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=fast, verbose=False
        )
        ids = tuple(coded["input_ids"])
        spans = tuple((a, b) for a, b in coded["offset_mapping"]) if fast else ((0, 0),) * len(ids)
        opening = self._opening
        if opening and ids[: len(opening)] == opening:
            return ids, spans
        return opening + ids, ((0, 0),) * len(opening) + spans

    def token_id(self, token: str | int | None, role: str = "target") -> int | None:
        """The id of a target or foil given as text (without special tokens) or as an exact id.

        Raises:
            TargetError: an id outside the vocabulary, or a text that is not exactly one token.
        """
        if token is None:
            return None
        if isinstance(token, int):
            if 0 <= token < self.n_rows:
                return token
            raise TargetError(
                f"{role} id {token} is outside the vocabulary: expected 0..{self.n_rows - 1}"
            )
        ids = self._without_word_start(self.tokenizer(token, add_special_tokens=False)["input_ids"])
        if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id and ids[0] < self.n_rows:
            return ids[0]
        if len(ids) == 1 and self._is_unknown_literal(token, ids[0]):
            return ids[0]
        pieces = " + ".join(repr(self.text(i)) for i in ids)
        found = f"{len(ids)} tokens ({pieces})" if len(ids) > 1 else "no token of the vocabulary"
        hint = f"; did you mean {' ' + token!r}?" if self._spaced_is_single(token) else ""
        raise TargetError(
            f"{role} {token!r} is {found}: expected exactly one{hint or '; give one token or its id'}"
        )

    def _is_unknown_literal(self, token: str, token_id: int) -> bool:
        """Whether `token` names the unknown token itself (GPT-2 uses its end of text for both)."""
        return token == self.tokenizer.unk_token and token_id < self.n_rows

    def _without_word_start(self, ids: Sequence[int]) -> list[int]:
        """Drop the bare word-start piece that a prefix-space tokenizer splits off."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(ids))
        return list(ids[1:]) if len(ids) > 1 and pieces[0] == WORD_START else list(ids)

    def _spaced_is_single(self, token: str) -> bool:
        if token.startswith(" "):
            return False
        ids = self._without_word_start(
            self.tokenizer(" " + token, add_special_tokens=False)["input_ids"]
        )
        return len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id

    def text(self, token_id: int) -> str:
        """The text of one token, its leading space kept; bytes that are no character as <0x..>."""
        if token_id not in self._texts:
            self._texts[token_id] = self._text(token_id).replace("\0", "<0x00>")
        return self._texts[token_id]

    def _text(self, token_id: int) -> str:
        piece = self.tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:
            return f"<id {token_id}>"
        text = str(self.tokenizer.decode([token_id], clean_up_tokenization_spaces=False))
        if REPLACEMENT in text and REPLACEMENT not in piece:
            return _bytes_text(piece)
        return " " + text if piece.startswith(WORD_START) and not text.startswith(" ") else text


def _bytes_text(piece: str) -> str:
    """A byte-level BPE piece with the bytes that are no character by themselves spelled out."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {char: byte for byte, char in bytes_to_unicode().items()}
    if not all(char in byte_of for char in piece):
        return piece
    raw = bytes(byte_of[char] for char in piece)
    shown = raw.decode("utf-8", errors="surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in shown)

"""From text to token ids and back: the special-token policy, targets, and where a subject lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench.errors import PromptError, TargetError
from workbench.models.chat import Chat, Spans, render, template_hash
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
        spans: the (start, end) characters of each token; (0, 0) for special tokens that were added,
            and for every token of a tokenizer that does not know them.
        target, foil: token ids, or None.
        answer: the ids of a target that is a text of several tokens; empty for one token or none.
        chat: the messages as the chat template writes them; None where the prompt is a text.
        mask: the id of the tokenizer's mask token; None where it has none.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    target: int | None
    foil: int | None
    chat: Chat | None = None
    mask: int | None = None
    answer: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def text(self) -> str:
        """The text that the tokens are of; of a chat, what its template writes."""
        return self.prompt.text if self.chat is None else self.chat.text

    @cached_property
    def subject(self) -> tuple[int, int]:
        """First and last token position of the subject.

        Raises:
            PromptError: no subject, or one that does not occur exactly once; or the tokenizer does
                not say which characters its tokens are of.
        """
        inside = self.inside(*self._subject_characters())
        if not inside:
            raise PromptError(f"subject {self.prompt.subject!r} covers no token of the prompt")
        return inside[0], inside[-1]

    @property
    def subject_text(self) -> str | None:
        """The subject's own characters, however it was given; None where there is none."""
        given = self.prompt.subject
        text = given if isinstance(given, str | None) else self.text[slice(*given)]
        return text and text.strip()

    @property
    def word_of_subject(self) -> str | None:
        """The word that the subject begins or ends inside of; None where it holds whole words.

        In scripts without capitals, of which many do not part words, nothing is said.

        Raises:
            PromptError: as for `subject`.
        """
        start, end = self._subject_characters()
        text = self.text
        if not any(_inside_word(text, i) for i in (start, end)):
            return None
        while _inside_word(text, start):
            start -= 1
        while _inside_word(text, end):
            end += 1
        return text[start:end]

    @property
    def masked(self) -> list[int]:
        """Token positions of the masked words.

        Raises:
            PromptError: there is none, or the tokenizer has no mask token.
        """
        if self.mask is None:
            raise PromptError(
                "the tokenizer has no mask token: expected one, such as BERT's, to use positions 'mask'"
            )
        found = [i for i, token in enumerate(self.ids) if token == self.mask]
        if not found:
            raise PromptError(
                f"prompt {self.text[:40]!r} holds no mask token (id {self.mask}): expected at least one "
                "to use positions 'mask'"
            )
        return found

    def turns(self, role: str) -> list[int]:
        """Token positions of what `role` says in a chat; of "generation_prompt", of what opens a turn.

        Raises:
            PromptError: the prompt is no chat, or holds nothing of the role; or as for `subject`.
        """
        if self.chat is None:
            raise PromptError(
                f"prompt {self.text[:40]!r} is no chat: give it as messages to use positions {role!r}"
            )
        spans = self.chat.spans(role)
        return sorted({i for start, end in spans for i in self.inside(start, end)})

    def inside(self, start: int, end: int) -> list[int]:
        """The tokens that hold a character of [start, end), ascending.

        Raises:
            PromptError: the tokenizer does not say which characters its tokens are of.
        """
        if not any(stop for _, stop in self.spans):
            raise PromptError(
                "the tokenizer does not say which characters its tokens are of (it is a slow one): give "
                "positions as indices, or load a fast tokenizer"
            )
        return [i for i, (a, b) in enumerate(self.spans) if a < end and b > start]

    def _subject_characters(self) -> tuple[int, int]:
        subject, text = self.prompt.subject, self.text
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
            where = f" (at characters {', '.join(map(str, starts[:8]))})" if starts else ""
            raise PromptError(
                f"subject {subject!r} occurs {len(starts)} times{where} in {text[:60]!r}: expected once; "
                "give it as [start, end] characters"
            )
        return starts[0], starts[0] + len(subject)


def _inside_word(text: str, place: int) -> bool:
    """Whether letters that know capitals stand on both sides of a place between characters."""
    return 0 < place < len(text) and all(
        c.lower() != c.upper() for c in text[place - 1 : place + 1]
    )


class Tokens:
    """A tokenizer with one stated policy.

    A text gets the special tokens that its tokenizer puts *before* one, once: never a second BOS
    where it already begins with one, and never a closing token, after which there would be nothing
    to predict. An encoder's text gets its closing tokens too, without which it was never trained.
    A chat gets those that its template writes, and no others.

    Args:
        closed: whether a text gets its closing tokens.
    """

    def __init__(self, tokenizer: Any, n_rows: int, *, closed: bool = False) -> None:
        self.tokenizer = tokenizer
        self.n_rows = n_rows
        self.closed = closed
        self._texts: dict[int, str] = {}

    @property
    def policy(self) -> str:
        """Which special tokens a prompt gets, in words."""
        open_only = "opening tokens, once; no closing tokens"
        own = "opening and closing tokens, once" if self.closed else open_only
        return f"the tokenizer's own {own}; a chat: its template's alone"

    @cached_property
    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens that the tokenizer puts before and after a text."""
        bare = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        full = self.tokenizer("a", add_special_tokens=True)["input_ids"]
        width = len(bare)
        for start in range(len(full) - width + 1):
            if full[start : start + width] == bare:
                return tuple(full[:start]), tuple(full[start + width :])
        return (), ()

    @property
    def opening(self) -> tuple[int, ...]:
        """The special tokens that a text gets before it."""
        return self._around[0]

    def ids(self, text: str) -> tuple[int, ...]:
        """The ids of `text` without special tokens."""
        return self._coded(text)[0]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with the vocabulary, the special tokens, and where they go."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return hash_text(f"{vocabulary} {self.tokenizer.special_tokens_map} {self._around}")

    @property
    def template(self) -> str | None:
        """16 hex digits of the chat template; None where the tokenizer has none."""
        return template_hash(self.tokenizer)

    @property
    def pad_id(self) -> int:
        """An id to fill padded places with; they are masked, so any row of the embedding serves."""
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) and pad < self.n_rows else 0

    @property
    def mask_id(self) -> int | None:
        """The id of the mask token; None where the tokenizer has none."""
        mask: int | None = self.tokenizer.mask_token_id
        return mask

    def encode(
        self, prompt: Prompt, context: int | None = None, *, long_targets: bool = False
    ) -> EncodedPrompt:
        """Encode `prompt`.

        Args:
            context: the most tokens that the model takes; None for no limit.
            long_targets: whether a target may have several tokens, which are then its `answer`.

        Raises:
            PromptError: a prompt without tokens, longer than `context` (it is never cut), or with a
                token that the model has no embedding for; a chat without a template, or that its
                template refuses.
            TargetError: a target or foil that is not one token of the model.
        """
        chat = render(self.tokenizer, prompt.messages) if prompt.messages else None
        ids, spans = self._ids(prompt.text) if chat is None else self._coded(chat.text)
        if not ids:
            raise PromptError(f"prompt {prompt.shown!r} has no tokens: expected at least one")
        if context is not None and len(ids) > context:
            raise PromptError(
                f"prompt {prompt.shown[:40]!r}... has {len(ids)} tokens: the model's context is "
                f"{context}; shorten it (prompts are never cut)"
            )
        if max(ids) >= self.n_rows:
            raise PromptError(
                f"token id {max(ids)} is outside the model's {self.n_rows} embeddings"
            )
        answer = self.answer_ids(prompt.target) if long_targets else ()
        if answer and prompt.foil is not None:
            raise TargetError(
                f"target {prompt.target!r} has {len(answer)} tokens and there is a foil: the two would run "
                "on different texts; give a target of one token, or no foil"
            )
        if answer and context is not None and len(ids) + len(answer) - 1 > context:
            raise PromptError(
                f"prompt {prompt.shown[:40]!r}... and its target have {len(ids) + len(answer)} tokens: "
                f"the model's context is {context}; shorten it (prompts are never cut)"
            )
        target = None if answer else self.token_id(prompt.target, "target")
        foil = self.token_id(prompt.foil, "foil")
        return EncodedPrompt(prompt, ids, spans, target, foil, chat, self.mask_id, answer)

    def _ids(self, text: str) -> tuple[tuple[int, ...], Spans]:
        """Ids and characters of `text` between the special tokens that it does not have yet."""
        ids, spans = self._coded(text)
        before, after = self._around
        if ids[: len(before)] == before:
            before = ()
        if not self.closed or ids[len(ids) - len(after) :] == after:
            after = ()
        none = ((0, 0),)
        return before + ids + after, none * len(before) + spans + none * len(after)

    def _coded(self, text: str) -> tuple[tuple[int, ...], Spans]:
        """Ids and characters of `text` alone."""
        fast = bool(getattr(self.tokenizer, "is_fast", False))
        coded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=fast, verbose=False
        )
        ids = tuple(coded["input_ids"])
        return ids, tuple((a, b) for a, b in coded["offset_mapping"]) if fast else ((0, 0),) * len(
            ids
        )

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

    def answer_ids(self, target: str | int | None) -> tuple[int, ...]:
        """The ids of a target that has several tokens; empty for any other.

        Raises:
            TargetError: one of them is no token of the model.
        """
        if not isinstance(target, str):
            return ()
        ids = self._without_word_start(
            self.tokenizer(target, add_special_tokens=False)["input_ids"]
        )
        if len(ids) < 2:
            return ()
        if self.tokenizer.unk_token_id in ids or max(ids) >= self.n_rows:
            raise TargetError(
                f"target {target!r} holds no token of the vocabulary: expected known ones"
            )
        return tuple(ids)

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

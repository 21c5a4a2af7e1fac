"""A chat as its template writes it: one text, and where in it each role speaks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import PromptError
from workbench.messages import Message, Messages
from workbench.models.fingerprint import hash_text

__all__ = ["CHAT_ROLES", "GENERATION_PROMPT", "Chat", "Spans", "render", "template_hash"]

GENERATION_PROMPT = "generation_prompt"
CHAT_ROLES = ("system", "developer", "user", "assistant", "tool", GENERATION_PROMPT)
FIRST_MARK = 0xF1000  # of a plane of Unicode that no text uses

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Chat:
    """Messages as one text.

    Attributes:
        text: what the template makes of them, special tokens written out.
        roles: (start, end) characters of what each role says, and of what opens the assistant's
            turn (`GENERATION_PROMPT`). A role of which the template changes a message is not there,
            nor one that says nothing: calls of tools are no text of the assistant's.
    """

    text: str
    roles: Mapping[str, Spans] = field(default_factory=dict)

    def spans(self, role: str) -> Spans:
        """The characters of `role`.

        Raises:
            PromptError: nothing in the chat is its.
        """
        if not self.roles.get(role):
            known = [name for name in CHAT_ROLES if self.roles.get(name)]
            raise PromptError(
                f"chat {self.text[:40]!r} has no {role} that its template writes as it stands: expected "
                f"one of {', '.join(known) or 'all, last or indices'}"
            )
        return self.roles[role]


def template_hash(tokenizer: Any) -> str | None:
    """16 hex digits of the tokenizer's chat template; None where it has none."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):  # several, of which chats are written with this one
        template = template.get("default")
    return hash_text(template) if template else None


def render(tokenizer: Any, messages: Messages) -> Chat:
    """`messages` in the tokenizer's chat template, to be continued by the assistant.

    The template opens the assistant's turn, or leaves it open where the last message is its own;
    a last message that calls tools is whole, and stays closed. It runs in transformers' sandbox.

    Raises:
        PromptError: there is no template, or it refuses the messages.
    """
    if template_hash(tokenizer) is None:
        raise PromptError(
            "the tokenizer has no chat template: give the prompt as text, or set "
            "tokenizer.chat_template"
        )
    text = _rendered(tokenizer, messages, opened=True)
    roles = _contents(tokenizer, messages, text)
    opening = _opening(tokenizer, messages, text)
    return Chat(text, roles | ({GENERATION_PROMPT: opening} if opening else {}))


def _rendered(tokenizer: Any, messages: Messages, *, opened: bool) -> str:
    answered = messages[-1]["role"] == "assistant"
    try:
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=opened and not answered,
            continue_final_message=opened and answered and not messages[-1].get("tool_calls"),
        )
    except Exception as error:  # a template is a program of its own and fails as it likes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PromptError(f"the chat template refuses the messages: {reason}") from None
    return text


def _opening(tokenizer: Any, messages: Messages, text: str) -> Spans:
    """What the template adds behind the last message to open the assistant's turn."""
    if messages[-1]["role"] == "assistant":
        return ()
    closed = _rendered(tokenizer, messages, opened=False)
    return ((len(closed), len(text)),) if text.startswith(closed) and text != closed else ()


def _contents(tokenizer: Any, messages: Messages, text: str) -> dict[str, Spans]:
    """The characters of each role's messages, found by marks around them in a second rendering."""
    marked = tuple(_marked(message, *_marks(number)) for number, message in enumerate(messages))
    places = _places(_rendered(tokenizer, marked, opened=True), text, len(messages))
    found: dict[str, list[tuple[int, int] | None]] = defaultdict(list)
    for number, message in enumerate(messages):
        if not _said(message):
            continue
        before, after = (places.get(mark, ()) for mark in _marks(number))
        once = len(before) == len(after) == 1
        found[message["role"]].append((before[0], after[0]) if once else None)
    return {
        role: tuple(span for span in spans if span is not None)
        for role, spans in found.items()
        if None not in spans
    }


def _marks(number: int) -> tuple[str, str]:
    return chr(FIRST_MARK + 2 * number), chr(FIRST_MARK + 2 * number + 1)


def _said(message: Message) -> str:
    """What the message says, without its outer spaces, which templates trim."""
    return (message.get("content") or "").strip()


def _marked(message: Message, before: str, after: str) -> Message:
    """The message with marks around what it says; as it is where that is nothing."""
    said = _said(message)
    if not said:
        return message
    marked = message["content"].replace(said, f"{before}{said}{after}", 1)
    return {**message, "content": marked}


def _places(seen: str, text: str, count: int) -> Mapping[str, Sequence[int]]:
    """Where in `text` the marks of `count` messages stand, of which `seen` is full.

    Nowhere where the template writes another text because of them: it looks into what is said.
    """
    marks = {mark for number in range(count) for mark in _marks(number)}
    found: dict[str, list[int]] = defaultdict(list)
    bare: list[str] = []
    for letter in seen:
        if letter in marks:
            found[letter].append(len(bare))
        else:
            bare.append(letter)
    return found if "".join(bare) == text else {}

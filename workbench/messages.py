"""Chat messages: what a prompt holds in the place of a text, checked and as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import PromptError

__all__ = ["Message", "Messages", "checked_messages", "read_messages", "transcript"]

Message = Mapping[str, Any]
"""One turn: "role" and "content", two texts; other fields go to the template as they are.

The content may be None or missing beside a list of "tool_calls"."""

Messages = tuple[Message, ...]


def checked_messages(given: Any) -> Messages:
    """`given` as messages, a copy.

    Raises:
        PromptError: it is no list of objects with a role and a content, named by its number.
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise PromptError(f"messages is {given!r}: expected a list of {{role, content}} objects")
    return tuple(_checked(message, number) for number, message in enumerate(given, start=1))


def _checked(message: Any, number: int) -> Message:
    if not isinstance(message, Mapping):
        raise PromptError(f"message {number} is {message!r}: expected an object {{role, content}}")
    for name in ("role", "content"):
        if not isinstance(message.get(name), str) and not (
            name == "content" and _calls_alone(message)
        ):
            raise PromptError(f"message {number} has no {name}: expected a text")
    if not message["role"]:
        raise PromptError(f"message {number} has an empty role: expected user, assistant or system")
    return dict(message)


def _calls_alone(message: Message) -> bool:
    """Whether the message calls tools and says nothing."""
    calls = message.get("tool_calls")
    return message.get("content") is None and isinstance(calls, list) and bool(calls)


def transcript(messages: Messages) -> str:
    """The messages without a template, for lists and error messages.

    >>> transcript(({"role": "user", "content": "Hello"},))
    'user: Hello'
    """
    return "\n".join(
        f"{message['role']}: {message.get('content') or message.get('tool_calls', '')}"
        for message in messages
    )


def read_messages(path: str | Path) -> Messages:
    """The messages of one chat: a JSON file that holds the list of them.

    Raises:
        PromptError: no such file, or another content.
    """
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError:
        raise PromptError(f"no chat file {path}: expected JSON, a list of messages") from None
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise PromptError(
            f"{path} is not JSON ({error.msg} at line {error.lineno}): expected a list of messages"
        ) from None
    try:
        return checked_messages(given)
    except PromptError as error:
        raise PromptError(f"{path}: {error}") from None

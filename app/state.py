"""What the page is about: what was asked, what is selected, and both as a link."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from workbench import Prompt, WorkbenchError

__all__ = ["Asked", "Link", "LinkError", "Run", "Selection", "prompt_id"]

LONGEST_IN_LINK = 200  # characters


class LinkError(WorkbenchError, ValueError):
    """A link names something that this server does not have."""


@dataclass(frozen=True)
class Asked:
    """What is to be measured: a model's name, a prompt, and the tokens to follow.

    `target` and `foil` are "" where there is none; a leading space belongs to the token.
    """

    model: str
    text: str
    target: str = ""
    foil: str = ""

    def prompt(self) -> Prompt:
        """The prompt for an instrument."""
        return Prompt(self.text, target=self.target or None, foil=self.foil or None)


@dataclass(frozen=True)
class Run:
    """What has been measured, as the page keeps it: layers are 0..`layers`."""

    asked: Asked
    layers: int
    positions: int
    link: str

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Run:
        """The run from its stored form."""
        return cls(**(stored | {"asked": Asked(**stored["asked"])}))

    def stored(self) -> dict[str, Any]:
        """The run as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Selection:
    """The one selection, which every view reads and writes.

    `prompt` is the prompt's id in the result, `site` the component.
    """

    prompt: int | str
    layer: int
    position: int
    site: str

    def stored(self) -> dict[str, Any]:
        """The selection as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Link:
    """What the page's address says; None where it says nothing."""

    asked: Asked | None = None
    layer: int | None = None
    position: int | None = None
    site: str | None = None
    colour: str | None = None
    view: str | None = None

    @classmethod
    def read(cls, search: str, text_of: Callable[[str], str | None]) -> Link:
        """The link of a page's query string.

        Args:
            search: the query string, with or without its "?".
            text_of: the prompt with this id, or None.

        Raises:
            LinkError: a number is none, or the prompt is not known here.
        """
        fields = {name: values[0] for name, values in _fields(search).items()}
        return cls(
            _asked(fields, text_of),
            _number(fields, "layer"),
            _number(fields, "position"),
            *(fields.get(name) for name in ("site", "colour", "view")),
        )

    def asked_of(self, start: Asked) -> Asked:
        """What to measure: what the link says, on the page's own model where it names none."""
        if self.asked is None:
            return start
        return self.asked if self.asked.model else replace(self.asked, model=start.model)

    @staticmethod
    def query(asked: Asked) -> str:
        """The part of the query string that names what is measured; long prompts by their id."""
        inline = len(asked.text) <= LONGEST_IN_LINK
        prompt = {"prompt": asked.text} if inline else {"prompt_id": prompt_id(asked.text)}
        followed = {"target": asked.target, "foil": asked.foil}
        return urlencode({"model": asked.model} | prompt | {k: v for k, v in followed.items() if v})


def prompt_id(text: str) -> str:
    """The id under which the server keeps a prompt of any length."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fields(search: str) -> dict[str, list[str]]:
    return parse_qs(search.removeprefix("?"))


def _asked(fields: dict[str, str], text_of: Callable[[str], str | None]) -> Asked | None:
    text = fields.get("prompt")
    if text is None and "prompt_id" in fields:
        text = text_of(fields["prompt_id"])
        if text is None:
            raise LinkError(
                f"the prompt {fields['prompt_id']} of this link is not on this server: "
                "paste the prompt itself and press Run"
            )
    if text is None:
        return None
    return Asked(fields.get("model", ""), text, fields.get("target", ""), fields.get("foil", ""))


def _number(fields: dict[str, str], name: str) -> int | None:
    value = fields.get(name)
    if value is None or value.isdecimal():
        return None if value is None else int(value)
    raise LinkError(f"{name}={value} in this link is no whole number: expected 0 or more")

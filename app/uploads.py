"""Prompt sets that come to the page: bundled ones, and files that a person uploads."""

from __future__ import annotations

import base64
import binascii
import tempfile
from pathlib import Path

from app.given import MADE, prompt_set
from workbench import PromptError, PromptSet
from workbench.atlas import PROMPTS, prompts_path
from workbench.prompts import SUFFIXES

__all__ = ["LARGEST", "PASTED", "bundled", "offered", "pasted", "require_size", "uploaded"]

LARGEST = 20 * 2**20  # bytes
PASTED = "pasted lines"  # what a set is called that came as text


def offered() -> list[dict[str, object]]:
    """What `bundled` takes, in groups: sets that are there, and labelled ones that are made."""
    from probes.sparse.makers import MADE as MAKERS

    made = [{"value": f"{MADE}{name}", "label": name.replace("_", " ")} for name in MAKERS]
    return [
        {"group": "Atlas' prompts", "items": list(PROMPTS)},
        {"group": "Labelled, for probes", "items": made},
    ]


def bundled(name: str) -> PromptSet:
    """A prompt set that comes with the workbench.

    Raises:
        PromptError: none is called so.
    """
    if name not in PROMPTS and not name.startswith(MADE):
        raise PromptError(f"no bundled set {name}: expected one of {', '.join(PROMPTS)}")
    return prompt_set(name) if name.startswith(MADE) else PromptSet.read(prompts_path(name))


def pasted(text: str) -> PromptSet:
    """The prompts of a text: JSONL where it begins with "{", else one prompt a line.

    Raises:
        PromptError: too large, or a line that cannot be used.
    """
    suffix = ".jsonl" if text.lstrip().startswith("{") else ".txt"
    content = text.encode("utf-8", "replace")
    require_size(PASTED, len(content))
    return _read(PASTED, suffix, content)


def uploaded(name: str, contents: str) -> PromptSet:
    """The prompts of a file as the browser sends it; its name says its kind and nothing else.

    Args:
        name: what the file is called there; nothing is written under it.
        contents: a data URL.

    Raises:
        PromptError: too large, or not a prompt file; the library's own line, with `name` in it.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise PromptError(f"unknown kind of prompt file {name}: expected {', '.join(SUFFIXES)}")
    return _read(name, suffix, _content(name, contents))


def _read(name: str, suffix: str, content: bytes) -> PromptSet:
    """The prompts of a file that is there for a moment; errors call it `name`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"prompts{suffix}"
        path.write_bytes(content)
        try:
            return PromptSet.read(path)
        except PromptError as error:
            raise PromptError(str(error).replace(str(path), name)) from None


def _content(name: str, contents: str) -> bytes:
    try:
        content = base64.b64decode(contents.partition(",")[2], validate=True)
    except binascii.Error:
        raise PromptError(f"{name} did not arrive whole: upload it again") from None
    require_size(name, len(content))
    return content


def require_size(name: str, size: int) -> None:
    """Refuse a file of more bytes than the page takes.

    Raises:
        PromptError: it has more.
    """
    if size > LARGEST:
        raise PromptError(
            f"{name} has {size:,} bytes: expected at most {LARGEST:,}; use "
            "`workbench run --prompts` for larger files"
        )

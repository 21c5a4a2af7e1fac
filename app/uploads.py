"""Prompt sets that come to the page: bundled ones, and files that a person uploads."""

from __future__ import annotations

import base64
import binascii
import tempfile
from pathlib import Path

from workbench import PromptError, PromptSet
from workbench.atlas import prompts_path
from workbench.prompts import SUFFIXES

__all__ = ["LARGEST", "bundled", "require_size", "uploaded"]

LARGEST = 20 * 2**20  # bytes


def bundled(name: str) -> PromptSet:
    """A prompt set that comes with the workbench."""
    return PromptSet.read(prompts_path(name))


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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"prompts{suffix}"
        path.write_bytes(_content(name, contents))
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

"""Which lens the logit lens reads with: its own, or a fitted one by file or as an object."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lenses.translators.translator import Translator, load_lens
from workbench.errors import SettingError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LOGIT", "Said", "checked_lens", "heading", "said_of", "translator_of"]

LOGIT = "logit"
SHOWN = 8  # digits of a hash in a title
SAID = re.compile(r"(?P<kind>[a-z_]+):(?P<file>.*)#(?P<hash>[0-9a-f]{16})", re.DOTALL)
HASHED = re.compile(r"(?P<file>.+)#(?P<hash>[0-9a-f]{16})", re.DOTALL)


class Said(NamedTuple):
    """A fitted lens in words: `tuned_lens:file.safetensors#0123456789abcdef`.

    Attributes:
        kind: its name.
        file: where it lies; "" where it was not saved.
        hash: of the file.
    """

    kind: str
    file: str
    hash: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.file}#{self.hash}"

    @property
    def title(self) -> str:
        """For figures: the kind and the first digits of the hash."""
        kinds = {kind.name: kind.title for kind in Translator.__subclasses__()}
        return f"{kinds.get(self.kind, self.kind)} {self.hash[:SHOWN]}"


def checked_lens(lens: str | Translator) -> str | Translator:
    """The setting in its one form: "logit", a lens as it is, or a file with its kind and hash.

    A text that names kind and hash is believed until the file is read.

    Raises:
        SettingError: it is neither, or the file's hash is not the one that is named.
        ResultError: the file cannot be read.
    """
    if isinstance(lens, Translator) or lens == LOGIT:
        return lens
    if not isinstance(lens, str) or not lens:
        raise SettingError(f"logit_lens: lens is {lens!r}: expected logit, or the file of a lens")
    if said_of(lens) is not None:
        return lens
    hashed = HASHED.fullmatch(lens)
    file, digits = (lens, "") if hashed is None else (hashed["file"], hashed["hash"])
    if not Path(file).is_file():
        raise SettingError(
            f"logit_lens: no lens file {file}: expected logit, or the file of a lens"
        )
    found = _loaded(file, *_stamp(file))
    said = Said(found.name, file, found.hash)
    _require_hash(said, digits or found.hash)
    return str(said)


def said_of(lens: str | Translator) -> Said | None:
    """The lens in words; None for the logit lens."""
    if isinstance(lens, Translator):
        return Said(lens.name, "" if lens.file is None else str(lens.file), lens.hash)
    match = SAID.fullmatch(lens)
    return None if match is None else Said(match["kind"], match["file"], match["hash"])


def translator_of(lens: str | Translator) -> Translator | None:
    """The lens itself; None for the logit lens.

    Raises:
        SettingError: its file is gone, or holds another one by now.
        ResultError: the file cannot be read.
    """
    if isinstance(lens, Translator):
        return lens
    said = said_of(lens)
    if said is None:
        return None
    if not Path(said.file).is_file():
        where = f"its file {said.file} is gone" if said.file else "it was not saved: save it first"
        raise SettingError(f"logit_lens: {said.title} cannot be read: {where}")
    found = _loaded(said.file, *_stamp(said.file))
    _require_hash(Said(found.name, said.file, found.hash), said.hash)
    return found


def heading(data: xr.Dataset) -> str | None:
    """The title of the fitted lens that a result was read with; None for the logit lens."""
    settings = json.loads(data.attrs.get("provenance", "{}")).get("settings", {})
    said = said_of(str(settings.get("lens", LOGIT)))
    return None if said is None else said.title


def _require_hash(found: Said, wanted: str) -> None:
    if found.hash != wanted:
        raise SettingError(
            f"logit_lens: {found.file} holds another lens by now (hash {found.hash}, asked for is "
            f"{wanted}): name the file without a hash to use it as it is"
        )


def _stamp(file: str) -> tuple[int, int]:
    status = Path(file).stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4)
def _loaded(file: str, changed: int, size: int) -> Translator:
    """Kept until the file changes: a lens of a large model takes a gigabyte."""
    return load_lens(file)

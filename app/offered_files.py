"""Files that a page may name: those of one folder, by their names; a link opens nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.instruments import defaults, kinds
from workbench.errors import SettingError

__all__ = ["OfferedFiles"]

SUFFIX = ".safetensors"
SUFFIXES = (SUFFIX, ".nc")  # lenses, and results of sparse probes
NOTHING = "none, as the folder holds none"
HASH = re.compile(r"#[0-9a-f]{16}")
KIND = re.compile(r"[a-z_]+:")


@dataclass(frozen=True)
class OfferedFiles:
    """The files of a folder, each called by its name without the suffix.

    A page's settings come from whoever sends a link. Where an instrument says that a setting names a
    file (`Instrument.files`), the page therefore takes no path: what it sends is looked up among the
    names of this folder's files, and never becomes part of a path.

    Attributes:
        root: the folder; it may be missing, and offers nothing then.
    """

    root: Path

    @property
    def names(self) -> dict[str, Path]:
        """The files by their names, but for links that lead out of the folder; folders of SAEs too."""
        root = self.root.resolve()
        folders = sorted(file.parent for file in self.root.glob(f"*/sae_weights{SUFFIX}"))
        files = sorted(file for suffix in SUFFIXES for file in self.root.glob(f"*{suffix}"))
        found = [*folders, *files]
        return {file.stem: file for file in found if file.resolve().parent == root}

    def opened(self, instrument: str, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings with each name replaced by its file.

        A name may carry the hash of the file, as in "atlas-tuned#0123456789abcdef".

        Raises:
            SettingError: no file is offered under a name.
        """
        usual, found = defaults(instrument), dict(settings)
        for setting in _files(instrument):
            text = found.get(setting, usual[setting])
            if text != usual[setting]:
                found[setting] = self._file(instrument, setting, text, usual[setting])
        return found

    def closed(self, instrument: str, settings: Mapping[str, str]) -> dict[str, str]:
        """The reverse: the settings with each file replaced by its name, for a form or a link.

        A file of elsewhere, which another program measured with, is called by its own name; the page
        will say that it does not offer it.
        """
        usual, found = defaults(instrument), dict(settings)
        for setting in _files(instrument):
            text = found.get(setting, usual[setting])
            if text != usual[setting]:
                found[setting] = _name(text)
        return found

    def _file(self, instrument: str, setting: str, text: str, usual: str) -> str:
        mark = HASH.search(text)
        name, digits = (text, "") if mark is None else (text[: mark.start()], mark[0])
        if name not in self.names:
            known = ", ".join(filter(None, [usual, *self.names]))
            expected = f"one of {known}" if known else NOTHING
            raise SettingError(
                f"{instrument}: no {setting} {text[:40]!r} is offered here: expected {expected}; the "
                f"page offers the {' and '.join(SUFFIXES)} files and SAEs of its lens folder "
                "(workbench app --lens-root)"
            )
        return f"{self.names[name]}{digits}"


def _files(instrument: str) -> list[str]:
    """Settings that name a file of this folder; prompt sets are offered by `app.offered_prompts`."""
    kind = kinds()[instrument]
    return [setting for setting in kind.files if setting not in kind.prompt_files]


def _name(text: str) -> str:
    mark = HASH.search(text)
    file, digits = (text, "") if mark is None else (text[: mark.start()], mark[0])
    return Path(KIND.sub("", file, count=1)).stem + digits

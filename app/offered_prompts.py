"""Prompt sets that settings may name: bundled ones, and those that were chosen or uploaded on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.instruments import defaults, kinds
from workbench.atlas import PROMPTS, prompts_path
from workbench.errors import SettingError
from workbench.figures import shorten
from workbench.jobs import Desk

__all__ = ["OfferedPrompts"]

MOST = 50  # of those that were kept, the latest
SAID, LETTERS = 12, 40  # names that an error lists, and the letters of each


@dataclass(frozen=True)
class OfferedPrompts:
    """The prompt sets of a desk, each by its name.

    A page's settings come from whoever sends a link: as with files of lenses, what it sends is looked up
    among these names, and never becomes part of a path.

    Attributes:
        desk: keeps what was uploaded.
    """

    desk: Desk

    @property
    def names(self) -> list[str]:
        """Bundled sets, then those that are kept, the latest first."""
        return list(dict.fromkeys([*PROMPTS, *self.desk.named()]))[: len(PROMPTS) + MOST]

    def opened(self, instrument: str, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings with each name of a set replaced by a file of it.

        Raises:
            SettingError: no set is offered under a name.
        """
        usual, found = defaults(instrument), dict(settings)
        for setting in kinds()[instrument].prompt_files:
            text = found.get(setting, usual[setting])
            if text != usual[setting]:
                found[setting] = str(self._file(instrument, setting, text))
        return found

    def closed(self, instrument: str, settings: Mapping[str, str]) -> dict[str, str]:
        """The reverse: each file replaced by its set's name, for a form or a link.

        A file of elsewhere, which another program measured with, is called by its own name; the page
        will say that it does not offer it.
        """
        usual, found = defaults(instrument), dict(settings)
        for setting in kinds()[instrument].prompt_files:
            text = found.get(setting, usual[setting])
            if text != usual[setting]:
                found[setting] = self._name(Path(text))
        return found

    def _file(self, instrument: str, setting: str, name: str) -> Path:
        if name in PROMPTS:
            return prompts_path(name)
        if name in self.names:
            return self.desk.prompt_file(name)
        known = [shorten(one, LETTERS) for one in self.names]
        more = f" and {len(known) - SAID} more" if len(known) > SAID else ""
        raise SettingError(
            f"{instrument}: no {setting} {name[:LETTERS]!r} is offered here: expected one of "
            f"{', '.join(known[:SAID])}{more}; a set that is chosen, uploaded or pasted on the page Prompt "
            "sets is offered by its name"
        )

    def _name(self, path: Path) -> str:
        bundled = {prompts_path(name): name for name in PROMPTS}
        if path in bundled:
            return bundled[path]
        if path.parent.parent == self.desk.home.prompts:
            names = self.desk.named().items()
            same = [name for name, identifier in names if identifier == path.parent.name]
            exact = [name for name in same if self.desk.prompt_file(name) == path]
            return next(iter((*exact, *same)), path.name)
        return path.name

"""Prompt sets of any length, kept under their hash, so that a link can name them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass

from workbench.jobs.database import Database
from workbench.jobs.plain import canonical, plain_prompts, prompts_of
from workbench.prompts import PromptSet

__all__ = ["Texts"]

ID_DIGITS = 32


@dataclass(frozen=True)
class Texts:
    """The table of prompts."""

    database: Database

    def keep(self, prompts: PromptSet, name: str = "") -> str:
        """Store `prompts`, once, and say under which id; where named, the name is theirs from now on."""
        content = canonical(plain_prompts(prompts))
        identifier = hashlib.sha256(content.encode()).hexdigest()[:ID_DIGITS]
        with self.database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO prompts VALUES (?, ?)", (identifier, content))
            if name:
                row = (name, identifier, time.time())
                connection.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", row)
        return identifier

    def named(self) -> dict[str, str]:
        """The ids of the prompts that have a name, by it; the latest first."""
        with self.database.reading() as connection:
            rows = connection.execute("SELECT name, prompts FROM names ORDER BY named DESC")
            return {row["name"]: row["prompts"] for row in rows.fetchall()}

    def prompts(self, identifier: str) -> PromptSet | None:
        """The prompts with this id; None where there are none."""
        with self.database.reading() as connection:
            row = connection.execute(
                "SELECT content FROM prompts WHERE id = ?", (identifier,)
            ).fetchone()
        return None if row is None else prompts_of(json.loads(row["content"]))

"""Prompt sets of any length, kept under their hash, so that a link can name them."""

from __future__ import annotations

import hashlib
import json
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

    def keep(self, prompts: PromptSet) -> str:
        """Store `prompts`, once, and say under which id."""
        content = canonical(plain_prompts(prompts))
        identifier = hashlib.sha256(content.encode()).hexdigest()[:ID_DIGITS]
        with self.database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO prompts VALUES (?, ?)", (identifier, content))
        return identifier

    def prompts(self, identifier: str) -> PromptSet | None:
        """The prompts with this id; None where there are none."""
        with self.database.reading() as connection:
            row = connection.execute(
                "SELECT content FROM prompts WHERE id = ?", (identifier,)
            ).fetchone()
        return None if row is None else prompts_of(json.loads(row["content"]))

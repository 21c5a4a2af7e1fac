"""The prompts that a command line gives: one text, one chat, or a file of many."""

from __future__ import annotations

from pathlib import Path

import workbench as wb
from workbench.errors import PromptError, SettingError
from workbench.messages import read_messages

__all__ = ["MADE", "prompt_set", "prompts_of"]

MADE = "made:"


def prompts_of(
    text: str | None,
    chat: Path | None,
    file: Path | None,
    target: str | None,
    target_id: int | None,
    foil: str | None,
    subject: str | None,
    corrupted: str | None = None,
) -> wb.PromptSet:
    """The prompts of --prompt, --chat or --prompts, the first two with what they are asked about.

    Raises:
        PromptError: none or several of them are given, or one cannot be read.
        SettingError: a target is given twice, or beside a file whose lines have their own.
    """
    if [text, chat, file].count(None) != 2:
        raise PromptError("expected either --prompt TEXT, --chat FILE or --prompts FILE")
    if target is not None and target_id is not None:
        raise SettingError("expected either --target TEXT or --target-id N, not both")
    goal = target if target_id is None else target_id
    if file is None:
        messages = () if chat is None else read_messages(chat)
        prompt = wb.Prompt(
            text or "",
            messages=messages,
            target=goal,
            foil=foil,
            subject=subject,
            corrupted=corrupted,
        )
        return wb.PromptSet.of(prompt)
    given = {"--target": goal, "--foil": foil, "--subject": subject, "--corrupted": corrupted}
    for option, value in given.items():
        if value is not None:
            raise SettingError(
                f"{option} belongs to --prompt: in a prompts file it stands in each line"
            )
    return prompt_set(str(file))


def prompt_set(name: str) -> wb.PromptSet:
    """The prompts of a file, or of "made:NAME" those of a built-in maker of labelled prompts.

    Raises:
        PromptError: no such file or maker, or a line that cannot be used.
    """
    if not name.startswith(MADE):
        return wb.PromptSet.read(name)
    from probes.sparse import makers

    wanted = name.removeprefix(MADE)
    if wanted not in makers.MADE:
        raise PromptError(f"no prompts {name}: expected {MADE} and one of {', '.join(makers.MADE)}")
    return makers.MADE[wanted]()

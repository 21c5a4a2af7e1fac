"""Settings of an instrument from the strings of a command line or a URL."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from workbench.errors import SettingError
from workbench.instrument import Instrument, find

__all__ = ["configure"]

WORDS = {"true": True, "false": False, "none": None}


def configure(name: str, assignments: Sequence[str]) -> Instrument:
    """The instrument `name` with settings given as "name=value"; lists are comma-separated.

    Raises:
        SettingError: an unknown instrument or setting, or a value that it refuses.
    """
    kind = find(name)
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for assignment in assignments:
        setting, equals, value = assignment.partition("=")
        if not equals:
            raise SettingError(f"setting {assignment!r}: expected name=value")
        if setting not in known:
            raise SettingError(
                f"{name} has no setting {setting!r}: expected one of {', '.join(known)}"
            )
        values[setting] = _value(value)
    try:
        return kind(**values)
    except TypeError as error:
        raise SettingError(f"{name}: {error}") from None


def _value(text: str) -> Any:
    if "," in text:
        return tuple(_value(part) for part in text.split(",") if part)
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text

"""Settings of an instrument from the strings of a command line or a URL."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from workbench.errors import SettingError
from workbench.instrument import Instrument, find

__all__ = ["Setting", "assigned", "configure", "required", "settings_of", "text_of"]

Made = TypeVar("Made")
SLICE = re.compile(r"-?\d*:-?\d*(:-?\d*)?")
WORDS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Setting:
    """One setting of an instrument, for a form or a help text.

    Attributes:
        name: as in `name=value`.
        default: as text that `configure` reads back.
        help: what the instrument's docstring says of it.
        choices: the values it may have, as texts; empty for any that the instrument takes.
    """

    name: str
    default: str
    help: str
    choices: tuple[str, ...]


def settings_of(kind: type[Any]) -> list[Setting]:
    """The settings of an instrument, or of what else is set so: the fields of its dataclass."""
    types = get_type_hints(kind)
    said = _attributes(kind.__doc__ or "")
    return [
        Setting(f.name, text_of(_default(f)), said.get(f.name, ""), _choices(types[f.name]))
        for f in dataclasses.fields(kind)
    ]


def text_of(value: Any) -> str:
    """A setting's value as the text that `configure` reads back."""
    if isinstance(value, slice):
        ends = ("" if end is None else str(end) for end in (value.start, value.stop, value.step))
        return ":".join(ends).removesuffix(":")
    if isinstance(value, list | tuple):
        return ",".join(map(text_of, value)) + ("," if len(value) == 1 else "")
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return "" if field.default is dataclasses.MISSING else field.default


def _choices(kind: Any) -> tuple[str, ...]:
    if kind is bool:
        return ("true", "false")
    return tuple(map(text_of, get_args(kind))) if get_origin(kind) is Literal else ()


def _attributes(docstring: str) -> dict[str, str]:
    """What the section "Attributes:" of a docstring says of each name."""
    _, _, section = inspect.cleandoc(docstring).partition("\nAttributes:\n")
    section = section.partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def configure(name: str, assignments: Sequence[str]) -> Instrument:
    """The instrument `name` with settings given as "name=value"; lists are comma-separated.

    Raises:
        SettingError: an unknown instrument or setting, or a value that it refuses.
    """
    return assigned(find(name), name, assignments)


def assigned(kind: type[Made], name: str, assignments: Sequence[str]) -> Made:
    """A dataclass of settings, called `name` in errors, with settings given as "name=value".

    Raises:
        SettingError: an unknown setting, or a value that it refuses.
    """
    settings = {setting.name: setting for setting in settings_of(kind)}
    values: dict[str, Any] = {}
    for assignment in assignments:
        setting, equals, value = assignment.partition("=")
        if not equals:
            raise SettingError(f"setting {assignment!r}: expected name=value")
        if setting not in settings:
            raise SettingError(
                f"{name} has no setting {setting!r}: expected one of {', '.join(settings)}"
            )
        _require_choice(name, settings[setting], value)
        values[setting] = _value(value)
    if missing := [field for field in required(kind) if field not in values]:
        raise SettingError(f"{name}: {missing[0]} has no default: give {missing[0]}=...")
    try:
        return kind(**values)
    except TypeError as error:
        raise SettingError(f"{name}: {error}") from None


def required(kind: type[Any]) -> list[str]:
    """The settings of an instrument that have no default."""
    return [f.name for f in dataclasses.fields(kind) if _needed(f)]


def _needed(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.init and field.default is missing and field.default_factory is missing


def _require_choice(name: str, setting: Setting, text: str) -> None:
    """Refuse a value that the setting's type does not list; yes and no are read in any case."""
    if setting.choices and text not in setting.choices and text.lower() not in setting.choices:
        raise SettingError(
            f"{name}: {setting.name} is {text!r}: expected one of {', '.join(setting.choices)}"
        )


def _value(text: str) -> Any:
    if SLICE.fullmatch(text):
        return slice(*(int(end) if end else None for end in text.split(":")))
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

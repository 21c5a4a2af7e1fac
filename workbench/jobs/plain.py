"""Instruments, simulations and prompts as plain data, which JSON can carry, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from workbench.errors import PromptError, SettingError
from workbench.instrument import Instrument, find
from workbench.prompts import Prompt, PromptSet
from workbench.simulation import Simulation, find_simulation

__all__ = [
    "canonical",
    "instrument_of",
    "json_lines",
    "plain_instrument",
    "plain_prompts",
    "plain_settings",
    "prompts_of",
    "simulation_of",
]

SLICE = "slice"


def canonical(plain: Any) -> str:
    """The one JSON text of plain data."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def plain_instrument(instrument: Instrument | Simulation) -> dict[str, Any]:
    """Name and settings of an installed instrument or simulation.

    Raises:
        SettingError: it is not installed, or its settings would not arrive as they are.
    """
    name, settings = instrument.name, plain_settings(instrument)
    kind = find_simulation(name) if isinstance(instrument, Simulation) else find(name)
    if kind is not type(instrument):
        raise SettingError(f"{name}: another instrument is installed under this name")
    again = plain_settings(kind(**_rebuilt(settings)))
    if again != settings:
        raise SettingError(f"{name}: its settings do not survive JSON: {settings} became {again}")
    return {"name": name, "settings": settings}


def plain_settings(instrument: Instrument | Simulation) -> dict[str, Any]:
    """The settings as JSON can carry them.

    Raises:
        SettingError: one is neither text nor numbers nor made of them.
    """
    settings = instrument.settings().items()
    return {name: _plain(value, f"{instrument.name}: {name}") for name, value in settings}


def instrument_of(plain: Mapping[str, Any]) -> Instrument:
    """The instrument that `plain` was made of.

    Raises:
        SettingError: none is installed under its name, or it refuses the settings.
    """
    return find(plain["name"])(**_rebuilt(plain["settings"]))


def simulation_of(plain: Mapping[str, Any]) -> Simulation:
    """The simulation that `plain` was made of.

    Raises:
        SettingError: none is installed under its name, or it refuses the settings.
    """
    return find_simulation(plain["name"])(**_rebuilt(plain["settings"]))


def _plain(value: Any, what: str) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, slice):
        return {SLICE: [_plain(part, what) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, what) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, what) for item in value]
    raise SettingError(
        f"{what} is {value!r}: expected text, numbers, or lists of them, which JSON can carry"
    )


def _rebuilt(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_rebuilt(item) for item in value)
    if isinstance(value, dict):
        if value.keys() == {SLICE}:
            return slice(*value[SLICE])
        return {key: _rebuilt(item) for key, item in value.items()}
    return value


def plain_prompts(prompts: PromptSet) -> dict[str, Any]:
    """A prompt set as plain data; fields that say nothing are left out.

    Raises:
        PromptError: labels or other fields that JSON cannot carry.
    """
    try:
        plain = {"prompts": [_stated(prompt) for prompt in prompts], "numbers": prompts.numbers}
        canonical(plain)
    except (TypeError, ValueError) as error:
        raise PromptError(f"a prompt's labels or extra fields are no plain data: {error}") from None
    return plain


def json_lines(prompts: PromptSet) -> str:
    """A prompt set as the text of a JSONL file, which `PromptSet.read` reads.

    Raises:
        PromptError: labels or other fields that JSON cannot carry.
    """
    lines = []
    for stated in plain_prompts(prompts)["prompts"]:
        more = stated.pop("extra", {})
        lines.append(f"{json.dumps(more | stated, ensure_ascii=False)}\n")
    return "".join(lines)


def _stated(prompt: Prompt) -> dict[str, Any]:
    values = {
        field.name: (getattr(prompt, field.name), _default(field)) for field in fields(prompt)
    }
    return {name: value for name, (value, default) in values.items() if value != default}


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def prompts_of(plain: Mapping[str, Any]) -> PromptSet:
    """The prompt set that `plain` was made of."""
    numbers = plain["numbers"]
    prompts = tuple(_prompt(stated) for stated in plain["prompts"])
    return PromptSet(prompts, None if numbers is None else tuple(numbers))


def _prompt(stated: Mapping[str, Any]) -> Prompt:
    subject = stated.get("subject")
    span = {"subject": tuple(subject)} if isinstance(subject, list) else {}
    return Prompt(**{**stated, **span})

"""Refusals of settings, in the same words whichever instrument makes them."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.errors import SettingError

__all__ = ["one_of", "sites_of", "whole_number"]


def one_of(who: str, field: str, value: object, known: Sequence[str]) -> None:
    """Refuse a setting that is none of those known.

    Raises:
        SettingError: it is none.
    """
    if value not in known:
        raise SettingError(f"{who}: {field} is {value!r}: expected one of {', '.join(known)}")


def sites_of(who: str, given: str | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The sites that are asked for, of a list or of names with commas between.

    Raises:
        SettingError: there is none, one is unknown, or one is named twice.
    """
    sites = tuple(given.split(",") if isinstance(given, str) else given)
    unknown = [site for site in sites if site not in known]
    if unknown or not sites or len(set(sites)) < len(sites):
        found = ", ".join(map(repr, unknown or sites)) or "empty"
        raise SettingError(
            f"{who}: sites is {found}: expected some of {', '.join(known)}, each once"
        )
    return sites


def whole_number(who: str, field: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse a setting that is no whole number within its ends.

    Raises:
        SettingError: it is none.
    """
    if type(value) is not int or value < least or (most is not None and value > most):
        ends = f"at least {least}" if most is None else f"{least} to {most}"
        raise SettingError(f"{who}: {field} is {value!r}: expected a whole number, {ends}")

"""Settings that an interchange refuses, whatever the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from probes.interchange.levels import ADDED
from probes.settings import one_of, whole_number
from workbench.errors import SettingError
from workbench.models.sites import BLOCK_SITES

if TYPE_CHECKING:
    from probes.interchange.instrument import Interchange

__all__ = ["Kind", "Metric", "require_numbers", "require_subspace"]

Kind = Literal["rotation", "means", "direction", "coordinates"]
Metric = Literal["logit_difference", "logprob", "probability"]
LEAST = {"k": 1, "pairs": 8, "draws": 1, "epochs": 1, "seed": 0}


def require_numbers(settings: Interchange) -> None:
    """Refuse numbers out of their range.

    Raises:
        SettingError: one is.
    """
    for name, least in LEAST.items():
        whole_number("interchange", name, getattr(settings, name), least)
    for name, most in (("held_out", 1.0), ("rate", float("inf"))):
        value = getattr(settings, name)
        if type(value) not in (int, float) or not 0 < value < most:
            raise SettingError(f"interchange: {name} is {value!r}: expected between 0 and {most:g}")
    for name in ("layers", "coordinates"):
        given = getattr(settings, name)
        whole = all(type(one) is int and one >= 0 for one in given)
        if given != "all" and (not whole or len(set(given)) < len(given)):
            raise SettingError(
                f"interchange: {name} {list(given)}: expected distinct whole numbers, 0 or more"
            )
    if not settings.layers:
        raise SettingError("interchange: no layers: expected at least one, or all")


def require_subspace(settings: Interchange) -> None:
    """Refuse a subspace that is not one of the four, or not at its site, or lacks what it is made of.

    Raises:
        SettingError: it is so.
    """
    one_of("interchange", "subspace", settings.subspace, get_args(Kind))
    one_of("interchange", "metric", settings.metric, get_args(Metric))
    one_of("interchange", "site", settings.site, BLOCK_SITES)
    if settings.subspace == "rotation" and settings.site not in ADDED:
        raise SettingError(
            f"interchange: a rotation is fitted at {' or '.join(ADDED)}, not at {settings.site}: give "
            "another site or another subspace"
        )
    for name, given in (("direction", settings.direction), ("coordinates", settings.coordinates)):
        if bool(given) != (settings.subspace == name):
            said = f"needs {name}" if settings.subspace == name else f"has no use for {name}"
            raise SettingError(f"interchange: subspace={settings.subspace} {said}")

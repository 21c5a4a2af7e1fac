"""What an ablation's settings may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, get_args, get_type_hints

from probes.settings import one_of, whole_number
from workbench.errors import SettingError

if TYPE_CHECKING:
    from probes.ablation.instrument import Ablate

__all__ = ["checked", "layers_of"]

CHOSEN = ("what", "how", "each", "metric", "mean")
LEAST = {"draws": 1, "control": 0, "texts": 1, "seed": 0}


def checked(given: Ablate) -> None:
    """Refuse settings that mean nothing; lists become tuples.

    Raises:
        SettingError: one does.
    """
    types = get_type_hints(type(given))
    for name in CHOSEN:
        one_of("ablate", name, getattr(given, name), get_args(types[name]))
    for name, least in LEAST.items():
        whole_number("ablate", name, getattr(given, name), least)
    if given.each == "range" and given.what == "heads":
        raise SettingError(
            "ablate: each=range of heads: expected what=attention, mlp or blocks for ranges of layers"
        )
    object.__setattr__(given, "layers", _layers(given.layers))


def _layers(given: str | int | Sequence[int]) -> str | tuple[int, ...]:
    if given == "all":
        return "all"
    found = (given,) if isinstance(given, int) else given
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise SettingError(f"ablate: layers is {given!r}: expected layers from 1, or all")
    found = tuple(found)
    if not found or any(type(one) is not int or one < 1 for one in found):
        raise SettingError(f"ablate: layers is {given!r}: expected layers from 1, or all")
    return tuple(sorted(set(found)))


def layers_of(given: str | Sequence[int], n_layers: int) -> list[int]:
    """The layers in a model of so many.

    Raises:
        SettingError: it has no such layer.
    """
    if isinstance(given, str):
        return list(range(1, n_layers + 1))
    if given[-1] > n_layers:
        raise SettingError(f"ablate: no layer {given[-1]} to ablate: expected 1..{n_layers}")
    return list(given)

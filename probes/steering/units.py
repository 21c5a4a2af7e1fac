"""Which units are taken out, and what is put in their place."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from workbench.errors import SettingError
from workbench.models.batch import Places
from workbench.models.edits import Edit

__all__ = ["controls", "without"]


def controls(
    units: Sequence[int], width: int, draws: int, seed: tuple[int, int]
) -> list[list[int]]:
    """`draws` sets of as many units, none of them among `units`, each drawn from all others.

    Raises:
        SettingError: there are not so many others.
    """
    others = [unit for unit in range(width) if unit not in set(units)]
    if draws and len(others) < len(units):
        raise SettingError(
            f"{len(units)} of {width} units: expected at least as many others to draw a control from"
        )
    random = Random(repr(seed))
    return [random.sample(others, len(units)) for _ in range(draws)]


def without(site: tuple[str, int], units: Sequence[int], means: Tensor | None) -> Edit:
    """The edit that puts 0, or their means [all units], in the place of some units, everywhere."""
    chosen = torch.tensor(list(units))

    def change(old: Tensor, _: Places) -> Tensor:
        new = old.flatten(1).clone()  # z has heads and their widths
        at = chosen.to(new.device)
        new[:, at] = 0.0 if means is None else means.to(new)[at]
        return new.view_as(old)

    return Edit(site, change)

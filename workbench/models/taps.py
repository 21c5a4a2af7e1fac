"""What hangs on a hook: reading a site at places, keeping it whole, replacing it."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from workbench.errors import SettingError
from workbench.models.anatomy import Anatomy
from workbench.models.batch import Places
from workbench.models.edits import Edit
from workbench.models.hooks import Attachable, Tap
from workbench.models.keys_values import KeyValues
from workbench.models.sites import Site

__all__ = ["edit_taps", "gathering", "recording", "shifted"]

Key = TypeVar("Key")


def gathering(where: Places, out: dict[Key, Tensor], key: Key) -> Tap:
    """Put the values at `where`, a copy, into `out[key]`."""

    def tap(value: Tensor) -> None:
        out[key] = where.gather(value)

    return tap


def recording(out: dict[Key, Tensor], key: Key) -> Tap:
    """Put a copy of the whole value into `out[key]`."""

    def tap(value: Tensor) -> None:
        out[key] = value.detach().clone()

    return tap


def edit_taps(anatomy: Anatomy, edit: Edit, where: Places) -> list[tuple[Attachable, Tap]]:
    """The taps that make `edit` at `where`."""
    if edit.target.name == "resid_mid":
        return _resid_mid_taps(anatomy, edit, where)

    def tap(value: Tensor) -> Tensor:
        return where.scatter(value, _changed(edit, where.gather(value), where))

    return [(anatomy.point(edit.target), tap)]


def _changed(edit: Edit, old: Tensor, where: Places) -> Tensor:
    """The new values, [N, ...] as the old ones.

    Raises:
        SettingError: the edit gives another shape.
    """
    new = edit.change(old, where)
    if new.shape not in (old.shape, old.shape[1:]):
        raise SettingError(
            f"edit of {edit.target} gives shape {tuple(new.shape)}: expected {tuple(old.shape)} "
            f"(places first) or {tuple(old.shape[1:])}"
        )
    return new.expand_as(old)


def _resid_mid_taps(anatomy: Anatomy, edit: Edit, where: Places) -> list[tuple[Attachable, Tap]]:
    """Set resid_mid by replacing attn_out, so that the skip connection sees the edit too."""
    anatomy.require("resid_mid")
    layer = edit.target.layer
    before: dict[str, Tensor] = {}

    def replace_attn_out(out: Tensor) -> Tensor:
        resid_pre = before.pop("resid_pre")
        old = where.gather(resid_pre + out)
        return where.scatter(out, _changed(edit, old, where) - where.gather(resid_pre))

    return [
        (anatomy.point(Site("resid_pre", layer)), recording(before, "resid_pre")),
        (anatomy.point(Site("attn_out", layer)), replace_attn_out),
    ]


def shifted(where: Places, prefix: KeyValues | None) -> Places:
    """`where` in the columns that are run after `prefix`.

    Raises:
        SettingError: a place in the columns that `prefix` covers.
    """
    if prefix is None:
        return where
    if int(where.column.min()) < prefix.width:
        raise SettingError(
            f"positions reach into the first {prefix.width} columns, which are not run"
        )
    return replace(where, column=where.column - prefix.width)

"""Tidy rows of edits: one a prompt, layer, eta, method and text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lenses.editing.cases import Case, cases
from workbench.figures.reading import words
from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]

AXES = ("place", "layer", "eta", "edit", "case")
LABELS = ("layer", "eta", "method")
SCORES = ("target_logprob", "target_rank", "own_logprob", "own_rank")


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, layer, eta, method, kind, text, target, own, raw_eta, norm, ...

    `success`: of the prompt and its paraphrases, whether the target ranks first after the edit; of a
    neighbour, whether its own target does. `success_before`: the same before it. `kept`: whether the
    top token is the one from before. Ranks are whole numbers; a number that does not exist is None.
    """
    asked = {one["name"]: one for one in json.loads(data.attrs["provenance"])["prompts"]}
    kinds = data["kind"].values.tolist()
    most = {kind: kinds.count(kind) for kind in ("paraphrase", "neighbour")}
    for place, name in enumerate(data["prompt"].values.tolist()):
        one, fields = data.isel(place=place), asked[name]["fields"]
        found = cases(asked[name]["text"], fields.get("foil"), fields, most)
        yield from _of_prompt(one, found, _target(one, fields["target"]))


def _target(one: xr.Dataset, given: str | int) -> str:
    return given if isinstance(given, str) else str(words(one, one["target_id"]))


def _of_prompt(one: xr.Dataset, found: list[Case | None], target: str) -> Iterator[dict[str, Any]]:
    after, before = _columns(one, "after", AXES[1:]), _columns(one, "before", ("case",))
    sizes = {name: one[name].transpose("layer", "eta").values for name in ("raw_eta", "norm")}
    labels = [one[axis].values.tolist() for axis in AXES[1:4]]
    for cell in np.ndindex(*(len(axis) for axis in labels), len(found)):
        case = found[cell[3]]
        if case is None:
            continue
        yield {
            "prompt": plain(one["prompt"].values[()]),
            **{name: axis[i] for name, axis, i in zip(LABELS, labels, cell[:3], strict=True)},
            "kind": case.kind,
            "text": case.text,
            "target": target,
            "own": None if case.own is None else str(case.own),
            **{name: plain(values[cell[:2]]) for name, values in sizes.items()},
            **_numbers(
                case,
                {n: v[cell[3]] for n, v in before.items()},
                {n: v[cell] for n, v in after.items()},
            ),
        }


def _columns(one: xr.Dataset, when: str, dims: tuple[str, ...]) -> dict[str, Any]:
    """Scores and the top token's text as plain arrays."""
    tops = one[f"top_id_{when}"].transpose(*dims)
    found = {name: one[f"{name}_{when}"].transpose(*dims).values for name in SCORES}
    return found | {"top": words(one, tops)}


def _numbers(case: Case, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in SCORES:
        row |= {f"{name}_before": _number(name, before), f"{name}_after": _number(name, after)}
    judged = "own_rank" if case.kind == "neighbour" else "target_rank"
    return row | {
        "top_before": before["top"],
        "top_after": after["top"],
        "success_before": bool(before[judged] == 1),
        "success": bool(after[judged] == 1),
        "kept": bool(after["top"] == before["top"]),
    }


def _number(name: str, values: dict[str, Any]) -> float | int | None:
    value = plain(values[name])
    return int(value) if value is not None and name.endswith("_rank") else value

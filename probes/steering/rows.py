"""Tidy rows of steering: one a prompt, layer and strength."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from probes.steering.answers import Answers
from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Keys prompt, group, feature, direction, class, layer, strength, norm, and each number three times.

    `random_...` is the mean over the control's draws, None where there is none; `clean_...` that of the
    model as it is.
    """
    made = json.loads(data.attrs["provenance"])
    settings = made["settings"]
    groups = {one["name"]: one["fields"].get("group") for one in made["prompts"]}
    control = data.mean("draw") if data.sizes.get("draw") else data
    for place, prompt in enumerate(data["prompt"].values.tolist()):
        one, random = data.isel(place=place), control.isel(place=place)
        for layer in range(data.sizes["layer"]):
            for strength in range(data.sizes["strength"]):
                at = {"layer": layer, "strength": strength}
                yield {
                    "prompt": prompt,
                    "group": groups.get(prompt),
                    "feature": settings["feature"],
                    "direction": settings["direction"],
                    "class": {1: "in", 0: "out"}.get(int(one["label"])),
                    "layer": int(data["layer"][layer]),
                    "strength": float(data["strength"][strength]),
                    "norm": float(data["norm"][layer]),
                    **_numbers(one, random, at, drawn=bool(data.sizes.get("draw"))),
                }


def _numbers(
    one: xr.Dataset, random: xr.Dataset, at: dict[str, int], *, drawn: bool
) -> dict[str, Any]:
    found = {}
    for name in Answers.units:
        found[name] = plain(one[name].isel(at).values[()])
        found[f"random_{name}"] = (
            plain(random[f"random_{name}"].isel(at).values[()]) if drawn else None
        )
        found[f"clean_{name}"] = plain(one[f"clean_{name}"].values[()])
    return found

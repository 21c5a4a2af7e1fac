"""Tidy rows of a probe's ablation: one a prompt, layer and class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rows"]


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Keys prompt, group, feature, layer, class, units, tokens, loss, clean_loss, effect, random_effect.

    Losses are means over the prompt's tokens of the class; effects are changes against the model as it
    is; random_effect is the mean over the control's draws, None where there are none. A prompt has no
    row of a class of which it has no token.
    """
    made = json.loads(data.attrs["provenance"])
    groups = {one["name"]: one["fields"].get("group") for one in made["prompts"]}
    drawn = bool(data.sizes["draw"])
    random = data["random_loss"].mean("draw") if drawn else data["loss"] * float("nan")
    for place, prompt in enumerate(data["prompt"].values.tolist()):
        one = data.isel(place=place)
        for layer, units in zip(data["layer"].values.tolist(), data["units"].values, strict=True):
            for which in data["class"].values.tolist():
                at = {"layer": layer, "class": which}
                tokens = int(one["tokens"].sel({"class": which}))
                if not tokens:
                    continue
                clean = float(one["clean_loss"].sel({"class": which}))
                loss = float(one["loss"].sel(at))
                yield {
                    "prompt": prompt,
                    "group": groups.get(prompt),
                    "feature": made["settings"]["feature"],
                    "layer": layer,
                    "class": which,
                    "units": [int(unit) for unit in str(units).split()],
                    "tokens": tokens,
                    "loss": plain(loss),
                    "clean_loss": plain(clean),
                    "effect": plain(loss - clean),
                    "random_effect": plain(float(random.isel(place=place).sel(at)) - clean),
                }

"""Tidy rows of ablations: one a prompt and component."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.ablation.values import SITES
from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["effects", "rows", "settings_of"]


def settings_of(data: xr.Dataset) -> dict[str, Any]:
    """The settings that a result was made with."""
    found: dict[str, Any] = json.loads(data.attrs["provenance"])["settings"]
    return found


def effects(data: xr.Dataset) -> dict[str, xr.DataArray]:
    """Changes against the clean run, in the metric's unit and in nat per token; draws averaged.

    Keys score and loss; random_score and random_loss where there are controls.
    """
    clean = {"score": data["clean"], "loss": data["loss_clean"]}
    found = {}
    for name in ("score", "loss"):
        for of, along in ((name, "draw"), (f"random_{name}", "control")):
            if of in data:
                change = (data[of] - clean[name]).mean(along)
                found[of] = change.assign_attrs(unit=data[of].attrs["unit"])
    return found


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, site, layer, layer_end, head, ..., score, effect, stderr, clean, ...

    Effects are differences to the clean run: of the score (a component that helps has one below 0,
    but for KL) and of the loss (above 0). stderr is over the draws; None where there is one.
    `random_effect` and `random_loss_effect` are the control's. Keys that other causal instruments'
    rows have are None where ablation has no such thing.
    """
    provenance = json.loads(data.attrs["provenance"])
    groups = {one["name"]: one["fields"].get("group") for one in provenance["prompts"]}
    names = data["label_name"].values.tolist() if "label_name" in data.coords else []
    site = {"blocks": "block"}.get(
        provenance["settings"]["what"], SITES[provenance["settings"]["what"]]
    )
    for place in range(data.sizes["place"]):
        one = data.isel(place=place)
        prompt = plain(one["prompt"].values[()])
        label = str(names[int(one["label"])]) if "label" in one else None
        for cell in _cells(one):
            yield {
                "prompt": prompt,
                "site": site,
                **cell,
                "group": groups.get(prompt),
                "label": label,
            }


def _cells(one: xr.Dataset) -> Iterator[dict[str, Any]]:
    """What is known of each component of one prompt."""
    second = next((name for name in ("head", "layer_end") if name in one["score"].dims), None)
    axes = ["layer", *([second] if second else [])]
    drawn = {name: one[name].transpose(*axes, "draw").values for name in ("score", "loss")}
    changed = {name: part.transpose(*axes).values for name, part in effects(one).items()}
    clean, clean_loss = plain(one["clean"].values[()]), plain(one["loss_clean"].values[()])
    labels = [one[axis].values.tolist() for axis in axes]
    for at in np.ndindex(*map(len, labels)):
        layer = labels[0][at[0]]
        other = labels[1][at[1]] if second else None
        if second == "layer_end" and other < layer:
            continue
        yield {
            "layer": layer,
            "layer_end": other if second == "layer_end" else layer,
            "head": other if second == "head" else None,
            "position": None,
            "token": None,
            "score": plain(drawn["score"][at].mean()),
            "effect": plain(changed["score"][at]),
            "stderr": _error(drawn["score"][at]),
            "clean": clean,
            "corrupted": None,
            "random_effect": _at(changed, "random_score", at),
            "loss": plain(drawn["loss"][at].mean()),
            "loss_effect": plain(changed["loss"][at]),
            "loss_stderr": _error(drawn["loss"][at]),
            "loss_clean": clean_loss,
            "random_loss_effect": _at(changed, "random_loss", at),
        }


def _error(drawn: Any) -> float | None:
    """Standard error of the mean over draws."""
    return float(drawn.std(ddof=1) / len(drawn) ** 0.5) if len(drawn) > 1 else None


def _at(changed: dict[str, Any], name: str, at: tuple[int, ...]) -> Any:
    return plain(changed[name][at]) if name in changed else None

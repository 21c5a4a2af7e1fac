"""Tidy rows of ablations: one a prompt and component."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.ablation.values import SITES
from workbench.results import settings_of
from workbench.tidy import plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["effects", "rows", "settings_of"]

NUMBERS = (
    *("score", "effect", "stderr", "clean", "random_effect"),
    *("loss", "loss_effect", "loss_stderr", "loss_clean", "random_loss_effect"),
)


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


def units_of(data: xr.Dataset) -> list[str]:
    """What a mean goes over: each prompt's group, or the prompt itself where it has none."""
    groups = _groups(json.loads(data.attrs["provenance"]))
    return [groups.get(name) or str(name) for name in data["prompt"].values.tolist()]


def _groups(provenance: dict[str, Any]) -> dict[str | int, str | None]:
    """The group of each prompt."""
    return {one["name"]: one["fields"].get("group") for one in provenance["prompts"]}


def rows(data: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows with keys prompt, site, layer, layer_end, head, ..., score, effect, stderr, clean, ...

    Effects are differences to the clean run: of the score (a component that helps has one below 0,
    but for KL) and of the loss (above 0). stderr is over the draws; None where there is one.
    `random_effect` and `random_loss_effect` are the control's. Keys that other causal instruments'
    rows have are None where ablation has no such thing.
    """
    provenance = json.loads(data.attrs["provenance"])
    groups = _groups(provenance)
    what = provenance["settings"]["what"]
    site = "block" if what == "blocks" else SITES[what]
    second = next((name for name in ("head", "layer_end") if name in data["score"].dims), None)
    axes = ["layer", *([second] if second else [])]
    labels = [data[axis].values.tolist() for axis in axes]
    numbers = _numbers(data, axes)
    for place, prompt in enumerate(data["prompt"].values.tolist()):
        for at in np.ndindex(*map(len, labels)):
            layer, other = labels[0][at[0]], labels[1][at[1]] if second else None
            if second == "layer_end" and other < layer:
                continue
            cell = {name: plain(values[place][at]) for name, values in numbers.items()}
            yield {
                "prompt": prompt,
                "site": site,
                "metric": provenance["settings"]["metric"],
                "layer": layer,
                "layer_end": other if second == "layer_end" else layer,
                "head": other if second == "head" else None,
                "position": None,
                "token": None,
                **{name: cell.get(name) for name in NUMBERS},
                "corrupted": None,
                "group": groups.get(prompt),
                "label": _label(data, place),
            }


def _numbers(data: xr.Dataset, axes: list[str]) -> dict[str, NDArray[Any]]:
    """[place, layer, ...] every number of the rows that there is, by its key."""
    order, found = ["place", *axes], {}
    changed = {name: values.transpose(*order).values for name, values in effects(data).items()}
    for name, effect in (("score", "effect"), ("loss", "loss_effect")):
        drawn = data[name].transpose(*order, "draw").values
        found[name], found[effect] = drawn.mean(-1), changed[name]
        if (n := drawn.shape[-1]) > 1:
            error = "stderr" if name == "score" else "loss_stderr"
            found[error] = drawn.std(-1, ddof=1) / n**0.5
        if f"random_{name}" in changed:
            found[f"random_{effect}"] = changed[f"random_{name}"]
    for name in ("clean", "loss_clean"):
        values = data[name].values.reshape(-1, *[1] * len(axes))
        found[name] = np.broadcast_to(values, found["score"].shape)
    return found


def _label(data: xr.Dataset, place: int) -> str | None:
    if "label" not in data:
        return None
    return str(data["label_name"].values[int(data["label"].values[place])])

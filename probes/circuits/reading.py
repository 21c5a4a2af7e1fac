"""What of a result concerns one prompt, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import xarray as xr

from probes.causal.metrics import LEAST
from probes.tracing.reading import of_prompt
from workbench.results import settings_of

__all__ = ["SITES", "finite", "heading", "normalised", "of_prompt", "settings_of"]

SITES = {"resid_post": "state", "mlp_out": "MLP", "attn_out": "attention", "z": "heads"}
WORDS = {
    "logprob": "log p(target)",
    "logit_difference": "logit target − foil",
    "kl": "KL to the clean run",
}


def heading(one: xr.Dataset) -> list[str]:
    """The prompt, how it was corrupted and scored, and what the two runs score."""
    settings = settings_of(one)
    clean, corrupted = (float(one[name].values.ravel()[0]) for name in ("clean", "corrupted"))
    unit = one["clean"].attrs["unit"]
    way = settings["direction"]
    into = "clean into the corrupted run" if way == "denoising" else "corrupted into the clean run"
    return [
        "".join(map(str, one["token"].values)) if one.sizes.get("position", 1) > 1 else "",
        f"{WORDS[settings['metric']]}: clean {clean:.3g}, corrupted {corrupted:.3g} {unit}; {way}: {into}",
    ]


def normalised(effect: float, total: float, settings: Mapping[str, Any]) -> float | None:
    """An effect as a share of the whole way to what is put in; None where that is about 0.

    Args:
        total: the clean score less the corrupted one.
    """
    if abs(total) < LEAST[settings["metric"]]:
        return None
    return finite(effect / (total if settings["direction"] == "denoising" else -total))


def finite(value: float) -> float | None:
    """JSON knows no other numbers."""
    return float(value) if math.isfinite(value) else None

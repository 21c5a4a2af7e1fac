"""What a direct-attribution result attributes, in words."""

from __future__ import annotations

import xarray as xr

from workbench.figures import shorten, visible
from workbench.figures.reading import words

__all__ = ["NAMES", "attributed", "difference"]

CAPPED = "before the soft-cap"
NAMES = {
    "embed": "embedding",
    "attn_out": "attention",
    "mlp_out": "MLP",
    "cross_attn_out": "cross-attention",
}
"""The components as a person calls them."""


def difference(place: xr.Dataset, room: int) -> str:
    """The direction at one place in `room` letters: "·Paris − ·Rome", or "·Paris − mean"."""
    ends = _token(place, "target"), _token(place, "foil") or "mean"
    return " − ".join(shorten(end, (room - 3) // 2) for end in ends)


def attributed(place: xr.Dataset) -> str:
    """The direction at one place: what is taken from what, and whose choice the target is."""
    foil = _token(place, "foil") or "mean of the vocabulary"
    own = "" if place["target_given"] else " (the model's own top token)"
    capped = f", {CAPPED}" if place["capped"] else ""
    return f"logit of {_token(place, 'target')}{own} − {foil}{capped}"


def _token(place: xr.Dataset, end: str) -> str:
    ids = place[f"{end}_id"]
    return visible(str(words(place, ids))) if ids >= 0 else ""

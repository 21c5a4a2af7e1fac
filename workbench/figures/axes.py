"""How layers are written on an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["layer_name", "layer_ticks"]

_STRIDES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def layer_name(layer: int) -> str:
    """The label of a layer on every axis: its number, or "emb" for the embedding."""
    return "emb" if layer == 0 else str(layer)


def layer_ticks(layers: Sequence[int], most: int = 9) -> dict[str, Any]:
    """Ticks for about `most` of the layers at a round stride, and for the last layer.

    >>> layer_ticks(range(13), most=5)["ticktext"], layer_ticks(range(49), most=3)["ticktext"]
    (['emb', '5', '12'], ['emb', '20', '48'])
    """
    stride = next(stride for stride in _STRIDES if stride * most >= len(layers))
    last = layers[-1]
    shown = [layer for layer in layers if layer % stride == 0 and last - layer > stride / 2]
    shown.append(last)
    return {"tickvals": shown, "ticktext": [layer_name(layer) for layer in shown]}

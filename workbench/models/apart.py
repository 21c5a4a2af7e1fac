"""One block's heads and MLP, each reading a residual stream of its own.

In a model all that a block does is computed from one stream. To send some of what came before to some
heads alone, each needs its own: the linear maps of queries, keys and values are taken on each head's
stream, through the model's own norm, and put in the place of what the maps give; attention then goes
on in the model's own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from workbench.models.blocks import Blocks
from workbench.models.forward import silenced
from workbench.models.hooks import Attachable, Tap, attached
from workbench.models.sites import Site
from workbench.models.taps import recording
from workbench.models.weights import Map, Weights

__all__ = ["heads_apart", "mlp_apart"]


def heads_apart(
    blocks: Blocks, weights: Weights, layer: int, streams: Mapping[str, Tensor]
) -> Tensor:
    """What each head gives (site z) when its queries, keys and values read streams of their own.

    Args:
        blocks: the blocks of the model that the weights are of.
        streams: by "q", "k" and "v": [rows, heads (of keys, for k and v), columns, d], before the norm.

    Returns:
        [rows, columns, heads, d_head]

    Raises:
        UnsupportedError: the family's branches add to the stream through norms (Gemma 2, OLMo 2).
    """
    anatomy = blocks.anatomy
    norm = weights.input_norm("attention", layer)
    given = {name: _mapped(norm, weights.map(name, layer), own) for name, own in streams.items()}
    taps: list[tuple[Attachable, Tap]] = [
        (
            anatomy.map_point(name, layer, "output"),
            _put_in(values, anatomy.map_outputs(name, layer)),
        )
        for name, values in given.items()
    ]
    found: dict[Site, Tensor] = {}
    site = Site("z", layer)
    with attached(taps), _without_mlp(blocks, layer):
        blocks.run(layer, streams["q"][:, 0], taps=[(site, recording(found, site))])
    return found[site]


def mlp_apart(blocks: Blocks, layer: int, stream: Tensor) -> Tensor:
    """[rows, columns, d] what the MLP adds when it reads this stream [rows, columns, d]."""
    family = blocks.anatomy.family
    found: dict[Site, Tensor] = {}
    site = Site("mlp_out", layer)
    attention = blocks.anatomy.part(layer, family.attention)
    with silenced(attention, family.attention_outputs, family.adds_residual):
        blocks.run(layer, stream, taps=[(site, recording(found, site))])
    return found[site]


@torch.no_grad()
def _mapped(norm: nn.Module, linear: Map, streams: Tensor) -> Tensor:
    """[rows, columns, d_out] each head's part of a linear map, from its own stream."""
    rows, heads, columns, _ = streams.shape
    weight = linear.weight.view(len(linear.weight), heads, -1)
    normed = norm(streams.flatten(0, 1)).view(streams.shape)
    found = torch.einsum("nhcd,dhe->nche", normed, weight.to(normed)).reshape(rows, columns, -1)
    return found if linear.bias is None else found + linear.bias


def _put_in(values: Tensor, own: Tensor | None) -> Tap:
    """Give `values` in the place of a module's outputs, or of its `own` outputs."""

    def tap(out: Tensor) -> Tensor:
        return values if own is None else out.index_copy(-1, own.to(out.device), values)

    return tap


def _without_mlp(blocks: Blocks, layer: int) -> AbstractContextManager[None]:
    """Where the MLP is one module, a context in which it is not run, as nobody reads it."""
    family = blocks.anatomy.family
    if not family.mlp:
        return nullcontext()
    mlp = blocks.anatomy.part(layer, family.mlp)
    return cast(
        AbstractContextManager[None], silenced(mlp, family.mlp_outputs, family.adds_residual)
    )

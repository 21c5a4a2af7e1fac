"""One batch's direct attribution as named variables, from what a pass has captured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lenses.attribution.terms import Direction, Largest, by_source, direction, largest, written
from workbench.errors import ModelError, UnsupportedError
from workbench.instrument import Named
from workbench.models.captures import Captures
from workbench.models.weights import Weights

__all__ = ["measured"]

CELL = ("layer", "place")
LOGIT = "logit"


def measured(
    captures: Captures, weights: Weights, split: Sequence[str], top: int
) -> dict[str, Named]:
    """The variables of `DirectAttribution`, by name.

    Raises:
        ModelError: a logit is not finite.
    """
    last = max(captures.layers("resid_post"))
    ends = _ends(captures)
    along = direction(
        captures, weights, captures["resid_post", last], captures["final_norm", last], ends
    )
    _require_finite(along.logit, captures)
    found = _components(captures, weights, along)
    if "heads" in split or "sources" in split:
        found |= _attention(captures, weights, along.folded, top if "sources" in split else 0)
    if "neurons" in split:
        found |= _neurons(captures, weights, along.folded, top)
    if (gap := _split_residual(found, ["embed", *weights.branches])) is not None:
        found["split_residual"] = Named(("place",), gap, LOGIT)
    return found | _said(along, given=ends[0] >= 0)


def _ends(captures: Captures) -> tuple[Tensor, Tensor]:
    """[N] target and foil of each place, -1 for none."""
    batch, row = captures.batch, captures.places.row
    return batch.targets("target")[row], batch.targets("foil")[row]


def _require_finite(logit: Tensor, captures: Captures) -> None:
    """Refuse logits that are no numbers, of which there are no parts."""
    bad = (~logit.isfinite()).nonzero()
    if len(bad):
        row, position = (
            int(of[bad[0, 0]]) for of in (captures.places.row, captures.places.position)
        )
        raise ModelError(
            f"direct_attribution: the logit at position {position} of "
            f"{captures.batch.prompts[row].text[:40]!r} is not finite: the weights or the dtype overflow; "
            "try float32"
        )


def _components(captures: Captures, weights: Weights, along: Direction) -> dict[str, Named]:
    """The embedding and the branches, the biases, and what their sum has over the logit."""
    branches = {
        name: _layered([_along(captures[name, layer], along) for layer in captures.layers(name)])
        for name in weights.branches
    }
    embed = torch.full_like(branches["attn_out"], torch.nan)
    embed[0] = _along(captures["resid_post", 0], along)
    terms = torch.stack([embed, *branches.values()])
    total = terms.nansum((0, 1)) + along.norm_bias + along.unembed_bias
    return {
        "contribution": Named(("component", *CELL), terms, LOGIT),
        "norm_bias": Named(("place",), along.norm_bias, LOGIT),
        "unembed_bias": Named(("place",), along.unembed_bias, LOGIT),
        "logit": Named(("place",), along.logit, LOGIT),
        "residual": Named(("place",), total - along.logit, LOGIT),
    }


def _along(component: Tensor, along: Direction) -> Tensor:
    return (component.to(along.folded.dtype) * along.folded).sum(-1)


def _layered(values: Sequence[Tensor]) -> Tensor:
    """[layer, ...] for layers 0..L, of those of 1..L; the embedding has none."""
    found = torch.stack(list(values))
    empty = torch.nan if found.is_floating_point() else -1
    return torch.cat([found.new_full((1, *found.shape[1:]), empty), found])


def _attention(captures: Captures, weights: Weights, folded: Tensor, top: int) -> dict[str, Named]:
    """Heads and the bias beside them; with `top`, the sources of each head."""
    heads, biases, sources = [], [], []
    for layer in captures.layers("z"):
        z = captures["z", layer]
        found = written(weights, "o", layer, folded, z.flatten(1), captures["attn_out", layer])
        through = found.through.view(z.shape)
        heads.append((z * through).sum(-1))
        biases.append(found.bias)
        if top:
            sources.append(largest(_moved(captures, layer, through), top))
    named = {
        "head_contribution": Named(("layer", "head", "place"), _layered(heads).mT, LOGIT),
        "attn_bias": Named(CELL, _layered(biases), LOGIT),
    }
    return named | (_sources(captures, sources) if top else {})


def _moved(captures: Captures, layer: int, through: Tensor) -> Tensor:
    """[N, heads, keys] what each head moves from each position."""
    everywhere = captures.everywhere
    if everywhere is None:
        raise UnsupportedError(
            "direct_attribution: split 'sources' needs values at every position: measure it with "
            "`measure`, or by calling it on a model and prompts"
        )
    return by_source(
        through,
        captures["pattern", layer],
        everywhere["v", layer],
        captures.places,
        everywhere.places,
    )


def _sources(captures: Captures, found: Sequence[Largest]) -> dict[str, Named]:
    position = _layered([one.index for one in found])
    row = captures.places.row[:, None, None]
    column = position.clamp_min(0) + captures.batch.starts[row]
    token = torch.where(position < 0, -1, captures.batch.ids[row, column])
    dims = ("layer", "place", "head", "k")
    return {
        "source_position": Named(dims, position, "position"),
        "source_token_id": Named(dims, token, "token id"),
        "source_contribution": Named(dims, _layered([one.value for one in found]), LOGIT),
        "source_rest": Named(dims[:3], _layered([one.rest for one in found]), LOGIT),
    }


def _neurons(captures: Captures, weights: Weights, folded: Tensor, top: int) -> dict[str, Named]:
    """The neurons that contribute most, the sum of the others, and the bias beside them."""
    found, biases = [], []
    for layer in captures.layers("mlp_act"):
        acts, name = captures["mlp_act", layer], weights.last_mlp_map
        one = written(weights, name, layer, folded, acts, captures["mlp_out", layer])
        found.append(largest(acts * one.through, top))
        biases.append(one.bias)
    cells = (*CELL, "k")
    return {
        "neuron_unit": Named(cells, _layered([one.index for one in found]), "neuron"),
        "neuron_contribution": Named(cells, _layered([one.value for one in found]), LOGIT),
        "neuron_rest": Named(CELL, _layered([one.rest for one in found]), LOGIT),
        "mlp_bias": Named(CELL, _layered(biases), LOGIT),
    }


def _split_residual(found: Mapping[str, Named], components: Sequence[str]) -> Tensor | None:
    """[N] the largest difference, at any layer, of a part and the sum of its split; None unsplit."""
    of = {name: one.values[1:] for name, one in found.items() if "layer" in one.dims[:1]}
    whole = dict(zip(components, found["contribution"].values[:, 1:], strict=True))
    gaps = []
    if "attn_bias" in of:
        gaps.append(of["head_contribution"].sum(1) + of["attn_bias"] - whole["attn_out"])
    if "source_rest" in of:
        heads = of["source_contribution"].nansum(-1) + of["source_rest"]
        gaps += (heads.mT - of["head_contribution"]).unbind(1)
    if "mlp_bias" in of:
        neurons = of["neuron_contribution"].nansum(-1) + of["neuron_rest"]
        gaps.append(neurons + of["mlp_bias"] - whole["mlp_out"])
    return torch.stack(gaps).abs().amax((0, 1)) if gaps else None


def _said(along: Direction, given: Tensor) -> dict[str, Named]:
    """What is attributed: the ends of the direction, and whether a soft-cap follows."""
    return {
        "target_id": Named(("place",), along.target, "token id"),
        "foil_id": Named(("place",), along.foil, "token id"),
        "target_given": Named(("place",), given.long(), "flag"),
        "capped": Named(("place",), torch.full_like(along.target, along.capped), "flag"),
    }

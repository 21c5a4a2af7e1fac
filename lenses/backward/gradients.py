"""One batch of the backward lens: the gradients of each variant, and what is read of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lenses.backward.factors import gradient_norm, shares, spectrum, split
from lenses.backward.maps import COMPONENTS, WRITE
from lenses.projection import project, readout_of
from lenses.vocabulary import Readout
from workbench.aim import Aim
from workbench.instrument import Measured, Named
from workbench.models.batch import Batch, Places
from workbench.models.engine import Factors
from workbench.models.gradients import Scalar
from workbench.models.protocol import Model

if TYPE_CHECKING:
    from lenses.backward.lens import BackwardLens

__all__ = ["measured"]

Key = tuple[str, int]
CELL = ("variant", "map", "layer", "place")
UNITS = {
    "x_norm": "L2",
    "delta_norm": "nat per unit",
    "share": "share of |G|^2",
    "gradient_norm": "nat per unit of weight",
    "target_score": "logit",
    "target_rank": "rank",
    "foil_score": "logit",
    "foil_rank": "rank",
    "rest_norm": "nat per unit",
    "rest_rank": "rank",
    "skip_cosine": "cosine",
}


def measured(lens: BackwardLens, model: Model, batch: Batch) -> tuple[Places, Measured]:
    """The numbers of one batch, as `BackwardLens` documents them, and their places."""
    aim = Aim.of(model, model.as_run(batch), against_foil=lens.loss == "difference")
    where = aim.batch.places("all")
    kept = _index(where, aim.batch.places(lens.positions))
    runs = [(model, aim)]
    if lens.controls:
        runs += [(model, aim.at_random(model, lens.seed)), (model.twin(lens.seed), aim)]
    gradients = [_Gradients.of(lens, one, its) for one, its in runs]
    chosen = {
        key: _dominant(share, where, kept, lens.dominant)
        for key, share in gradients[0].share.items()
    }
    tables = [_read(lens, g, chosen) for g in gradients]
    found: dict[str, Named] = {}
    for name in tables[0]:
        values = torch.stack([table[name] for table in tables])[:, :, :, kept]
        dims, unit = _described(name)
        found[name] = Named(dims, values, unit)
    aimed = torch.stack([its.aimed(where)[kept] for _, its in runs])
    losses = torch.stack([g.loss[where.row[kept]] for g in gradients])
    found["loss"] = Named(("variant", "place"), losses, "nat")
    found["aimed_id"] = Named(("variant", "place"), aimed, "token id")
    return _picked(where, kept), found


def _described(name: str) -> tuple[tuple[str, ...], str]:
    if name.endswith("_id"):
        return (*CELL, "k"), "token id"
    if name in ("table_score", "rest_score"):
        return (*CELL, "k"), "logit"
    if name == "singular_value":
        return (*CELL, "component"), "nat per unit of weight"
    return CELL, UNITS[name]


def _index(every: Places, wanted: Places) -> Tensor:
    """Where the wanted places stand among all of them."""
    width = int(every.position.max()) + 1
    keys = every.row * width + every.position
    return torch.searchsorted(keys, wanted.row * width + wanted.position)


def _picked(where: Places, index: Tensor) -> Places:
    return Places(where.row[index], where.position[index], where.token[index], where.column[index])


@dataclass(frozen=True)
class _Gradients:
    """The factors of one variant at every place, and what is known of them without a vocabulary.

    Attributes:
        loss: [rows] in nat.
        factors: of each map and layer, all places.
        residual: [N, d] gradients at what each writing map adds to the stream.
        skip: [N, d] gradient at the state after the last block.
        share: [N] of each map and layer.
        readouts: of inputs and of descents.
    """

    model: Model
    aim: Aim
    where: Places
    loss: Tensor
    factors: Mapping[Key, Factors]
    residual: Mapping[Key, Tensor]
    skip: Tensor
    share: Mapping[Key, Tensor]
    readouts: Mapping[bool, Readout]

    @classmethod
    def of(cls, lens: BackwardLens, model: Model, aim: Aim) -> _Gradients:
        keys = [
            (name, layer) for name in lens.named(model) for layer in range(1, model.n_layers + 1)
        ]
        seen: list[Tensor] = []

        def loss(logits: Tensor, at: Places) -> Tensor:
            losses = aim.losses(logits, at)
            seen.append(losses.detach())
            return losses.sum()

        factors = model.factors(aim.batch, loss, keys, at=aim.at)
        where = aim.batch.places("all")
        residual, skip = _residual(model, aim, loss, factors)
        share = {
            key: torch.cat([shares(one) for one in split(f, where)]) for key, f in factors.items()
        }
        readouts = {
            descending: readout_of(
                lens.readout, model.weights, model.readout, skip, descending=descending
            )
            for descending in (False, True)
        }
        return cls(model, aim, where, seen[0], factors, residual, skip, share, readouts)


def _residual(
    model: Model, aim: Aim, loss: Scalar, factors: Mapping[Key, Factors]
) -> tuple[dict[Key, Tensor], Tensor]:
    """Gradients at what each writing map adds to the stream, and at the state after the last block.

    Where a map's output is what is added, these are its deltas, and no second pass is needed; and
    the last MLP's are those of the last state.
    """
    writing = [key for key in factors if key[0] in WRITE]
    last = next((key for key in writing if key[1] == model.n_layers and key[0] != "o"), None)
    if last is not None and all(model.weights.adds(name) for name, _ in writing):
        return {key: factors[key].delta for key in writing}, factors[last].delta
    site_of = {"ff2": "mlp_out", "down": "mlp_out", "o": "attn_out"}
    sites = {key: (site_of[key[0]], key[1]) for key in writing}
    end = ("resid_post", model.n_layers)
    found = model.grad(aim.batch, loss, [*sites.values(), end], at=aim.at)
    return {key: found[site] for key, site in sites.items()}, found[end]


def _dominant(share: Tensor, where: Places, kept: Tensor, most: int | None) -> Tensor:
    """Of the kept places, those of largest share of each prompt (places in order)."""
    if most is None:
        return kept
    sizes = share[kept].abs().nan_to_num(0)
    rows = where.row[kept]
    found = [
        kept[rows == row][sizes[rows == row].topk(min(most, int((rows == row).sum()))).indices]
        for row in torch.unique(rows)
    ]
    return torch.cat(found).sort().values


Table = dict[str, Tensor]


def _read(lens: BackwardLens, g: _Gradients, chosen: Mapping[Key, Tensor]) -> Table:
    """Everything of one variant on the axes (map, layer, place, ...)."""
    names, layers = lens.named(g.model), g.model.n_layers
    cells = {key: _numbers(g, key) | _tokens(lens, g, key, chosen[key]) for key in g.factors}
    return {
        name: torch.stack(
            [torch.stack([cells[m, layer][name] for layer in range(1, layers + 1)]) for m in names]
        )
        for name in next(iter(cells.values()))
    }


def _numbers(g: _Gradients, key: Key) -> Table:
    """Sizes at every place of one map and layer."""
    factors, counts = g.factors[key], torch.bincount(g.where.row)
    each = split(factors, g.where)
    sizes = torch.stack([gradient_norm(one) for one in each])
    values = torch.stack([spectrum(one, COMPONENTS) for one in each])
    return {
        "x_norm": _wide(factors.x).norm(dim=-1),
        "delta_norm": _wide(factors.delta).norm(dim=-1),
        "share": g.share[key],
        "gradient_norm": sizes.repeat_interleave(counts),
        "singular_value": values.repeat_interleave(counts, dim=0),
        **_beside_skip(g, key),
    }


def _beside_skip(g: _Gradients, key: Key) -> Table:
    """How much of a shift is the skip path; NaN for a map that has no shift."""
    nothing = g.skip.new_full((len(g.where),), math.nan, dtype=_wide(g.skip).dtype)
    if key not in g.residual:
        return {"rest_norm": nothing, "skip_cosine": nothing}
    residual, skip = _wide(g.residual[key]), _wide(g.skip)
    cosine = torch.nn.functional.cosine_similarity(residual, skip, dim=-1)
    known = (residual.norm(dim=-1) > 0) & (skip.norm(dim=-1) > 0)
    return {
        "rest_norm": (residual - skip).norm(dim=-1),
        "skip_cosine": torch.where(known, cosine, nothing),
    }


def _tokens(lens: BackwardLens, g: _Gradients, key: Key, at: Tensor) -> Table:
    """Imprint or shift, and rest, of one map and layer, at the places `at`."""
    factors, writes = g.factors[key], key in g.residual
    vectors = factors.x
    if writes:
        vectors = -(g.residual[key] if lens.site == "residual" else factors.delta)
    found = _projected(lens, g, vectors, at, descending=writes)
    rest = -(g.residual[key] - g.skip) if writes else None
    more = _projected(lens, g, rest, at, descending=True)
    return {
        **{f"table_{name}": found[name] for name in ("id", "score")},
        **{
            name: found[name] for name in ("target_score", "target_rank", "foil_score", "foil_rank")
        },
        **{f"rest_{name}": more[name] for name in ("id", "score")},
        "rest_rank": more["target_rank"],
    }


def _projected(
    lens: BackwardLens, g: _Gradients, vectors: Tensor | None, at: Tensor, *, descending: bool
) -> Table:
    """Tokens of these vectors at some places; nothing at the others, and of a vector of zeros."""
    places, k = len(g.where), lens.top_k
    dtype = _wide(g.skip).dtype
    out: Table = {
        "id": torch.full((places, k), -1, device=g.skip.device),
        "score": g.skip.new_full((places, k), math.nan, dtype=dtype),
    }
    for name in ("target_score", "target_rank", "foil_score", "foil_rank"):
        out[name] = g.skip.new_full((places,), math.nan, dtype=dtype)
    if vectors is None:
        return out
    at = at[vectors[at].norm(dim=-1) > 0]
    rows = g.where.row[at]
    followed = torch.stack([g.aim.aimed(g.where)[at], g.aim.batch.targets("foil")[rows]])
    read = project(vectors[at], g.readouts[descending], k=k, followed=followed)
    out["id"][at], out["score"][at] = read.ids, read.scores.to(dtype)
    for row, role in enumerate(("target", "foil")):
        out[f"{role}_score"][at] = read.followed[row].to(dtype)
        out[f"{role}_rank"][at] = read.ranks[row].to(dtype)
    return out


def _wide(values: Tensor) -> Tensor:
    """Float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

"""All numbers of a batch's particles, prompt by layer, in one view of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from probes.particles.clustering import agglomerative, hdbscan, kmeans, silhouette
from probes.particles.clusters import (
    Joined,
    Participation,
    Spectrum,
    participation_ratio,
    vendi,
)
from probes.particles.concentration import Coinciding, Nearest
from probes.particles.dimension import FEWEST_POINTS, two_nn
from probes.particles.dimensions import energy_share, share_of_largest
from probes.particles.energy import Energy, mean_force
from probes.particles.histograms import (
    BINS,
    OfCosines,
    first_component,
    projection_histogram,
    quantile,
)
from probes.particles.order import cosine_from_sum, debiased_order, order_from_sum
from probes.particles.pairs import OfPairs, over_pairs
from probes.particles.path import Steps
from probes.particles.preprocessing import Prepared, prepare
from probes.particles.quantities import HARD, HISTOGRAMS, LEFT, QUANTILES
from probes.particles.rank import residuals
from probes.particles.sets import working_dtype
from probes.particles.states import SINKS, Drop, padded, tokens_that_count
from workbench.instrument import Named
from workbench.models.captures import Captures
from workbench.models.tokens import Tokens

__all__ = ["How", "measured", "norm_ratio"]

SMALLEST = 5  # tokens of a cluster, `hdbscan`'s default
NUMBERS = 2**23  # of the states that are worked on at a time: 32 MiB of float32
CACHED = 2**19  # of some layers of them, so that one layer's passes find it in the cache


@dataclass(frozen=True)
class How:
    """How states are measured: settings of `Particles`, and whose tokens they are."""

    tokens: Tokens
    drop: Drop
    beta: float = 1.0
    expensive: bool = False
    clusters: int = 0
    seed: int = 0


def measured(captures: Captures, how: How, mean: Tensor | None = None) -> dict[str, Tensor]:
    """[prompts, layers] of every quantity; [prompts] of those of the whole path.

    Args:
        captures: resid_post at every layer.
        how: the settings.
        mean: [layers, d] to take off; nothing where None.
    """
    parts = [_of(layers, counted, how, mean) for layers, counted in _sets(captures, how)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _sets(captures: Captures, how: How) -> Iterator[tuple[list[Tensor], Tensor]]:
    """A few prompts at a time: each layer's states [prompts, n, d], and which tokens count."""
    counted = tokens_that_count(captures, how.tokens, how.drop)
    layers = [padded(captures, layer) for layer in captures.layers("resid_post")]
    each = len(layers) * layers[0][0].numel()
    step = max(1, NUMBERS // each)
    for start in range(0, len(counted), step):
        here = slice(start, start + step)
        yield [layer[here].to(working_dtype(layer)) for layer in layers], counted[here]


def _of(
    layers: Sequence[Tensor], counted: Tensor, how: How, mean: Tensor | None
) -> dict[str, Tensor]:
    numbers, masks = [], []
    states: list[Tensor] = []
    step = max(1, CACHED // layers[0].numel())
    for start in range(0, len(layers), step):
        x = torch.stack([*layers[start : start + step]], 1)
        off = None if mean is None else mean[start : start + step].to(x.dtype)
        every = counted[:, None].expand(x.shape[:-1])
        found = prepare(x, every, off, sink=SINKS[how.drop], dtype=x.dtype)
        x = x if off is None else x.sub_(off[:, None])
        numbers.append(_at_each_layer(x, found, how))
        states += x.unbind(1)
        masks.append(found.mask.all(1))
    sets = {name: torch.cat([one[name] for one in numbers], 1) for name in numbers[0]}
    return _defined(sets) | _along(Steps.of_layers(states), torch.stack(masks).all(0))


def _defined(sets: dict[str, Tensor]) -> dict[str, Tensor]:
    """With quantiles, and NaN of one token, of which every number is a constant that says nothing."""
    law, few = sets["cosine_histogram"], sets["tokens"] < 2
    known = sets | {name: quantile(law, q) for name, q in QUANTILES.items()}
    return {
        name: values
        if name in LEFT
        else values.masked_fill(few[..., None] if name in HISTOGRAMS else few, torch.nan)
        for name, values in known.items()
    }


def _at_each_layer(x: Tensor, found: Prepared, how: How) -> dict[str, Tensor]:
    u, mask = found.u, found.mask
    total, n = u.sum(-2), mask.sum(-1).to(u.dtype)  # `prepare` leaves zeros where masked
    r = order_from_sum(total, n)
    rank, composite, share = residuals(x, mask)
    return {
        "mean_cosine": cosine_from_sum(total, n),
        "order_parameter": r,
        "order_debiased": debiased_order(r, n),
        "spin_energy": r.square() / -2,
        **_dear(u, mask, how),
        **_clusters(u, mask, how),
        **_of_pairs(u, mask, how),
        "rank_residual": rank,
        "composite_residual": composite,
        "composite_share": share,
        "top_dimensions_energy": energy_share(x, mask),
        "top_dimensions_cosine": share_of_largest(total.square()),
        "tokens": n,
        "sinks": found.sinks.to(u.dtype),
        "zeros": found.zeros.to(u.dtype),
    }


def _dear(u: Tensor, mask: Tensor, how: How) -> dict[str, Tensor]:
    """What takes eigenvectors, float64 or another product with all pairs; NaN unless asked for."""
    none = torch.full_like(u[..., 0, 0], torch.nan)
    if not how.expensive:
        names = ("intrinsic_dimension", "force", "component_share")
        law = none[..., None].expand(*none.shape, BINS)
        return {**dict.fromkeys(names, none), "component_histogram": law}
    axis, share = first_component(u, mask)
    return {
        "intrinsic_dimension": two_nn(u, mask, FEWEST_POINTS),
        "force": mean_force(u, mask, how.beta),
        "component_share": share,
        "component_histogram": projection_histogram(u, mask, axis),
    }


def _clusters(u: Tensor, mask: Tensor, how: How) -> dict[str, Tensor]:
    """Hard clusters, set by set; NaN unless asked for, the silhouette also of too few tokens."""
    none = torch.full_like(u[..., 0, 0], torch.nan)
    if not how.clusters:
        return dict.fromkeys(HARD, none)
    from threadpoolctl import threadpool_limits

    labels = torch.full(mask.shape, -1, device=mask.device)
    merged, dense = labels.clone(), labels.clone()
    with threadpool_limits(1):  # a prompt is too small to share; on a busy machine threads wait
        for one in np.ndindex(mask.shape[:-1]):
            if int(mask[one].sum()) > how.clusters:
                labels[one] = kmeans(u[one], mask[one], how.clusters, how.seed)
            merged[one] = agglomerative(u[one], mask[one])
            dense[one] = hdbscan(u[one], mask[one])
    n = mask.sum(-1).to(u.dtype)
    enough = n >= SMALLEST
    noise = (mask & (dense < 0)).sum(-1) / n
    return {
        "silhouette": silhouette(u, labels, mask),
        "agglomerative": (merged.amax(-1) + 1).to(u.dtype),
        "hdbscan": (dense.amax(-1) + 1).to(u.dtype).masked_fill(~enough, torch.nan),
        "hdbscan_noise": noise.masked_fill(~enough, torch.nan),
    }


def _of_pairs(u: Tensor, mask: Tensor, how: How) -> dict[str, Tensor]:
    """What takes all pairs, from one pass over them, and what the smaller Gram matrix says."""
    measures: dict[str, OfPairs] = {
        "components": Joined(u, mask),
        "concentration": Nearest(u, mask),
        "coinciding": Coinciding(u, mask),
        "energy": Energy(u, mask, how.beta),
        "cosine_histogram": OfCosines(u, mask),
    }
    size, width = u.shape[-2:]
    known = {} if how.expensive else {"vendi": torch.full_like(u[..., 0, 0], torch.nan)}
    if size <= width:
        measures["participation_ratio"] = Participation(u, mask)
        if how.expensive:
            measures["vendi"] = Spectrum(u, mask, size)
    else:
        known["participation_ratio"] = participation_ratio(u, mask)
        if how.expensive:
            known["vendi"] = vendi(u, mask)
    over_pairs(u, mask, *measures.values())
    known |= {name: measure.value() for name, measure in measures.items()}
    known["energy"] = known["energy"].double().exp()  # up to e^beta, beyond float32 from 89 on
    return known


def _along(steps: Steps, mask: Tensor) -> dict[str, Tensor]:
    """A layer's step is the one that ends at it: the embedding has none, and block 1 no turn."""
    return {
        "step": pad(steps.size(mask), (1, 0), value=torch.nan),
        "turn": pad(steps.turn(mask), (2, 0), value=torch.nan),
        "straightness": steps.straightness(mask),
    }


def norm_ratio(captures: Captures) -> Named:
    """(layer, place): each token's norm over the median of those that were read of its prompt."""
    places, columns = captures.places, []
    for layer in captures.layers("resid_post"):
        norms = padded(captures, layer).float().norm(dim=-1)
        there = torch.zeros_like(norms, dtype=torch.bool)
        there = there.index_put((places.row, places.position), there.new_ones(len(places)))
        middle = norms.masked_fill(~there, torch.nan).nanmedian(-1, keepdim=True).values
        columns.append((norms / middle)[places.row, places.position])
    return Named(("layer", "place"), torch.stack(columns), "times the prompt's median")

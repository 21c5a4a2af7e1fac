"""Edge attribution: the first-order effect of every edge between two parts, from one gradient.

1. Run both sides; keep what each sender adds to the residual stream: the embedding, each head's part of
   attention's output, each MLP.
2. Take the metric's gradient at the input of each receiver alone: at what the maps of queries, keys and
   values of a head give, through its rows of the map and the norm before it; likewise of an MLP; and at
   the last state, of the logits.
3. The edge from u to v has about (what u adds in the source run - in the base run) . gradient at v, summed
   over positions.

Sources: Syed et al. 2023, arXiv 2310.10348; with the gradient averaged along the embeddings between the
two runs (EAP-IG): Hanna et al. 2024, arXiv 2403.17806.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from probes.causal.effects import Direction
from probes.circuits.nodes import Nodes
from probes.circuits.pair import Pair, by_layer
from probes.circuits.patching import path_nodes
from workbench.models.captures import Captures
from workbench.models.engine import Factors
from workbench.models.protocol import Model
from workbench.models.weights import Weights

__all__ = ["edge_scores", "inputs_of", "written"]

HELD = 2**25  # numbers of the senders' outputs that are held at once


def edge_scores(pair: Pair, nodes: Nodes, direction: Direction, steps: int) -> Tensor:
    """[samples, senders, receivers] effects of edges; 0 where there is none.

    Args:
        steps: points of the gradient's mean; 0 for the gradient at the base run.
    """
    each = max(1, HELD // (len(nodes.senders) * pair.width * pair.model.d_model))
    parts = [
        _of_samples(pair, nodes, direction, steps, slice(start, start + each))
        for start in range(0, pair.samples, each)
    ]
    found = torch.cat(parts)
    return found * nodes.edges.to(found)


def _of_samples(pair: Pair, nodes: Nodes, direction: Direction, steps: int, rows: slice) -> Tensor:
    base, source = pair.ends(direction, rows)
    here, there = (pair.read(side, ("resid_post", "z", "mlp_out"))[0] for side in (base, source))
    moved = {
        name: by_layer(there, name, pair.width) - by_layer(here, name, pair.width)
        for name in ("resid_post", "z", "mlp_out")
    }
    sent = written(pair.model.weights, moved["resid_post"][0], moved["z"], moved["mlp_out"])
    sent = sent.flatten(2).transpose(0, 1)  # [samples, senders, width * d]
    found = sent.new_zeros(len(sent), len(nodes.senders), len(nodes.receivers))
    for share, weight in path_nodes(steps) if steps else [(0.0, 1.0)]:
        states = base + share * (source - base)
        for where, slopes in inputs_of(pair, nodes, states):
            reach = nodes.before(nodes.receivers[where.stop - 1])
            along = slopes.flatten(2).permute(1, 2, 0)  # [rows, width * d, receivers]
            found[:, :reach, where] += weight * (sent[:, :reach] @ along)
    return found


def written(weights: Weights, embed: Tensor, z: Tensor, mlp: Tensor) -> Tensor:
    """[senders, rows, width, d] what each sender adds, but for the bias that all heads of a block share.

    Args:
        embed: [rows, width, d].
        z: [layers, rows, width, heads, d_head].
        mlp: [layers, rows, width, d].
    """
    found = [embed[None]]
    for layer, (heads, out) in enumerate(zip(z, mlp, strict=True), 1):
        found += [by_head(weights, layer, heads), out[None]]
    return torch.cat(found)


def by_head(weights: Weights, layer: int, z: Tensor) -> Tensor:
    """[heads, rows, width, d] what each head adds, from z [rows, width, heads, d_head]."""
    return torch.einsum("nwhe,hed->hnwd", z, weights.heads(layer).to(z))


def inputs_of(pair: Pair, nodes: Nodes, states: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Gradients of the score at receivers' inputs, [receivers, rows, width, d], one part a time.

    Args:
        states: [rows, width, d] embeddings of the runs.

    Yields:
        The places of the receivers, and their gradients.
    """
    model, weights = pair.model, pair.model.weights
    read_by_mlp = "resid_pre" if nodes.parallel else "resid_mid"
    maps = ("q", "k", "v", *weights.mlp_inputs)
    factors = model.factors(
        pair.batch(len(states)),
        pair.total([]),
        [(name, layer) for layer in range(1, nodes.layers + 1) for name in maps],
        at=pair.at,
        start=(0, states),
    )
    found, _ = pair.read(
        states, [("resid_post", nodes.layers), "resid_pre", *{read_by_mlp} - {"resid_pre"}]
    )
    for layer in range(1, nodes.layers + 1):
        slopes = {
            name: _at_normed(weights, name, layer, factors[name, layer], states.shape[:2])
            for name in maps
        }
        attention = torch.cat([slopes[name] for name in "qkv"])
        mlp = sum(slopes[name] for name in weights.mlp_inputs)
        places = nodes.of_block(layer)
        for where, branch, site, one in (
            (slice(places["q"].start, places["v"].stop), "attention", "resid_pre", attention),
            (places["mlp"], "mlp", read_by_mlp, mlp),
        ):
            norm = weights.input_norm(branch, layer)  # type: ignore[arg-type]
            stream = found[site, layer].view(states.shape)
            yield where, _through(model, norm, stream, one)  # type: ignore[arg-type]
    last = slice(len(nodes.receivers) - 1, len(nodes.receivers))
    yield last, _at_last(pair, found, states)


def _at_normed(
    weights: Weights, name: str, layer: int, factors: Factors, shape: torch.Size
) -> Tensor:
    """[heads, rows, width, d] the gradient at a map's input through each head's part (MLP: one part)."""
    delta = factors.delta.to(torch.promote_types(factors.delta.dtype, torch.float32))
    weight = weights.map(name, layer).weight.to(delta)
    parts = weight.shape[1] // weights.d_head if name in "qkv" else 1
    split = weight.view(len(weight), parts, -1)
    by_part = delta.view(len(delta), parts, -1)
    found = torch.einsum("nhe,dhe->hnd", by_part, split)
    return found.view(parts, *shape, -1)


def _through(model: Model, norm: nn.Module, stream: Tensor, slopes: Tensor) -> Tensor:
    """Gradients at a norm's input, of those [parts, rows, width, d] at its output."""
    with model.lock, torch.enable_grad():
        given = stream.detach().expand(slopes.shape).requires_grad_()
        (found,) = torch.autograd.grad(norm(given), given, slopes.to(given))
    return found.to(slopes)


def _at_last(pair: Pair, found: Captures, states: Tensor) -> Tensor:
    """[1, rows, width, d] the gradient at the last state, which the logits read."""
    last = found["resid_post", pair.model.n_layers].view(states.shape)
    with torch.enable_grad():
        read = last[:, pair.at].detach().requires_grad_()
        score = pair.scored(pair.model.readout(read.flatten(0, 1))).sum()
        (slope,) = torch.autograd.grad(score, read)
    whole = torch.zeros_like(last)
    whole[:, pair.at] = slope
    return whole[None].to(torch.promote_types(whole.dtype, torch.float32))

"""Exact runs of circuits: kept edges carry what their sender adds here, all others the corrupted run's.

Each receiver reads a stream of its own: the corrupted run's, and of each kept edge what its sender adds in
this run less what it adds in the corrupted one. With every edge kept that is the clean run, with none the
corrupted one.

Source: edge patching as in Goldowsky-Dill et al. 2023, arXiv 2304.05969; kept against corrupted edges as
in Hanna et al. 2024, arXiv 2403.17806.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from probes.circuits.edges import HELD, by_head
from probes.circuits.nodes import Nodes
from probes.circuits.pair import Pair, by_layer
from workbench.models.apart import heads_apart, mlp_apart
from workbench.models.blocks import Blocks

__all__ = ["circuits"]


def circuits(pair: Pair, nodes: Nodes, kept: Tensor) -> Tensor:
    """[circuits, samples] the score of each circuit's run.

    Args:
        kept: [circuits, senders, receivers] whether an edge is in the circuit.
    """
    kept = kept.to(pair.model.device) & nodes.edges.to(pair.model.device)
    row = len(nodes.senders) * pair.samples * pair.width * pair.model.d_model
    each = max(1, HELD // row)
    with torch.no_grad(), pair.model.blocks(pair.contrast.batch) as blocks:
        corrupted = _Corrupted.of(pair, nodes)
        parts = [
            _Circuits(pair, nodes, blocks, corrupted, part).scores()
            for part in torch.split(kept, each)
        ]
    return torch.cat(parts)


@dataclass(frozen=True)
class _Corrupted:
    """The corrupted runs.

    Attributes:
        before, between: [layers, samples, width, d] what attention and what the MLP reads.
        z: [layers, samples, width, heads, d_head].
        mlp: [layers, samples, width, d].
        last: [samples, width, d].
    """

    before: Tensor
    between: Tensor
    z: Tensor
    mlp: Tensor
    last: Tensor

    @classmethod
    def of(cls, pair: Pair, nodes: Nodes) -> _Corrupted:
        read_by_mlp = "resid_pre" if nodes.parallel else "resid_mid"
        sites = dict.fromkeys(("resid_pre", read_by_mlp, "z", "mlp_out", "resid_post"))
        found, _ = pair.read(pair.contrast.corrupted[0], list(sites))
        before, between, z, mlp, states = (
            by_layer(found, name, pair.width)
            for name in ("resid_pre", read_by_mlp, "z", "mlp_out", "resid_post")
        )
        return cls(before, between, z, mlp, states[-1])


class _Circuits:
    """Some circuits on their way through the blocks; rows are circuits by samples."""

    def __init__(
        self, pair: Pair, nodes: Nodes, blocks: Blocks, corrupted: _Corrupted, kept: Tensor
    ) -> None:
        self.pair, self.nodes, self.blocks, self.corrupted = pair, nodes, blocks, corrupted
        self.kept = kept.to(corrupted.last.dtype)
        shape = (len(nodes.senders), len(kept), *corrupted.last.shape)
        self.moved = corrupted.last.new_zeros(shape)  # what senders add, less the corrupted run's
        self.done = 0

    def scores(self) -> Tensor:
        """[circuits, samples] the score of each run."""
        contrast, weights = self.pair.contrast, self.pair.model.weights
        self._sent((contrast.clean[0] - contrast.corrupted[0])[None, None])
        for layer in range(1, self.nodes.layers + 1):
            places, at = self.nodes.of_block(layer), layer - 1
            streams = {
                name: self._streams(self.corrupted.before[at], places[name]) for name in "qkv"
            }
            z = heads_apart(self.blocks, weights, layer, streams)
            before = self.done
            self._sent(by_head(weights, layer, self._over(z, self.corrupted.z[at]).flatten(0, 1)))
            end = self.done if not self.nodes.parallel else before
            stream = self._streams(self.corrupted.between[at], places["mlp"], end)[:, 0]
            mlp = mlp_apart(self.blocks, layer, stream)
            self._sent(self._over(mlp, self.corrupted.mlp[at])[None])
        last = len(self.nodes.receivers) - 1
        final = self._streams(self.corrupted.last, slice(last, last + 1))[:, 0, self.pair.at]
        logits = self.pair.model.readout(final.flatten(0, 1))
        return self.pair.scored(logits).view(len(self.kept), -1)

    def _over(self, values: Tensor, corrupted: Tensor) -> Tensor:
        """[circuits, samples, ...] of rows, less the corrupted run's [samples, ...]."""
        return values.to(corrupted).view(len(self.kept), *corrupted.shape) - corrupted

    def _sent(self, moved: Tensor) -> None:
        """Note what the next senders add, [senders, circuits, samples, width, d] or rows."""
        part = self.moved[self.done : self.done + len(moved)]
        part.copy_(moved if moved.dim() == part.dim() else moved.view(part.shape))
        self.done += len(moved)

    def _streams(self, corrupted: Tensor, places: slice, end: int | None = None) -> Tensor:
        """[circuits * samples, receivers, width, d] what each receiver reads."""
        end = self.done if end is None else end
        found = torch.einsum("cur,ucswd->csrwd", self.kept[:, :end, places], self.moved[:end])
        dtype = self.pair.model.dtype
        return (found + corrupted[:, None]).flatten(0, 1).to(dtype)

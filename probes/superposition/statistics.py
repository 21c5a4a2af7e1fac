"""||W_in||_2 b_in of every neuron of a layer, and how it is distributed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from workbench.errors import UnsupportedError
from workbench.models.norms import Norm
from workbench.models.weights import Map, Weights

__all__ = ["NORMS", "QUANTILES", "Inputs", "NormName", "edges", "histogram", "inputs", "quantiles"]

NormName = Literal["folded", "own"]
NORMS: tuple[NormName, ...] = get_args(NormName)
QUANTILES = (0.2, 0.5, 0.8)
BINS = 40
TAIL = 0.005  # of all neurons at each end, which have a bin without an end


@dataclass(frozen=True)
class Inputs:
    """What the neurons of a layer read with: a = act(w . x + b).

    Attributes:
        size: [neurons] ||w||_2.
        bias: [neurons] b.
    """

    size: Tensor
    bias: Tensor

    @property
    def product(self) -> Tensor:
        """[neurons] ||w||_2 b."""
        return self.size * self.bias

    def shuffled(self, seed: int) -> Tensor:
        """[neurons] ||w_i||_2 b_j, the biases dealt out anew among the neurons."""
        order = torch.randperm(len(self.bias), generator=torch.Generator().manual_seed(seed))
        return self.size * self.bias[order]


def inputs(weights: Weights, layer: int, norm: NormName) -> Inputs:
    """Of the neurons of block `layer`, in float64 on the CPU.

    With the norm folded in, w' = centred(gain * w) and b' = b + offset . w, so that
    w' . x / scale(x) + b' is what the activation function gets of the residual stream x; `centred`
    takes off the mean where the norm does.

    Raises:
        UnsupportedError: the MLP has no input bias, or no norm that can be folded in.
    """
    found = _map(weights, layer)
    assert found.bias is not None  # else it is refused
    rows, bias = found.weight.T.double(), found.bias.double()
    if norm == "folded":
        read = Norm.of(weights.input_norm("mlp", layer), rows)
        rows, bias = read.transposed(rows), bias + rows @ read.offset
    return Inputs(torch.linalg.vector_norm(rows, dim=1).cpu(), bias.cpu())


def _map(weights: Weights, layer: int) -> Map:
    names = weights.mlp_inputs
    if names == ("ff1",):
        found = weights.map("ff1", layer)
        if found.bias is not None:
            return found
    said = (
        f"its {' and '.join(names)} have none" if names else "each token goes to experts of its own"
    )
    raise UnsupportedError(
        f"superposition: ||W_in|| b_in needs an MLP of one input map with a bias, at layer {layer}: {said}"
    )


def quantiles(values: Tensor) -> Tensor:
    """[3] the 20%, 50% and 80% quantiles."""
    return values.quantile(torch.tensor(QUANTILES, dtype=values.dtype))


def edges(products: Sequence[Tensor]) -> Tensor:
    """[41] equal bins, the same for all layers, between the outermost 0.5% of all neurons."""
    low, high = torch.cat(list(products)).quantile(torch.tensor([TAIL, 1 - TAIL]).double()).tolist()
    return torch.linspace(low, high if high > low else low + 1, BINS + 1, dtype=torch.float64)


def histogram(values: Tensor, ends: Tensor) -> Tensor:
    """[42] how many values lie below the first edge, between any two, and from the last one on."""
    return torch.bincount(torch.bucketize(values, ends, right=True), minlength=len(ends) + 1)

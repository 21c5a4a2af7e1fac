"""Superposition statistics: how large the neurons' input weights and biases are, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from probes.bibliography import GURNEE
from probes.settings import one_of
from probes.superposition.statistics import (
    NORMS,
    QUANTILES,
    Inputs,
    NormName,
    edges,
    histogram,
    inputs,
    quantiles,
)
from workbench.errors import SettingError
from workbench.instrument import Citation, Measured, Named, SetLevel, State
from workbench.models.captures import Captures, Read
from workbench.models.protocol import Model

if TYPE_CHECKING:
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.prompts import Prompts
    from workbench.report.sections import Section
    from workbench.results import Result

__all__ = ["Superposition"]

PRODUCT = "weight norm x bias"


@dataclass(frozen=True)
class Superposition(SetLevel):
    """||W_in||_2 b_in of every neuron, layer by layer, from the weights alone; no prompt matters.

    A neuron a = act(w . x + b) that keeps still at many weak inputs at once, and answers to their sum
    alone, needs large weights and a negative bias: in toy models of superposition both grow together,
    and in Pythia's first layers they do. It is a sign of superposition, no proof of it.

    Control: the same with the biases dealt out anew among a layer's neurons, so that a difference
    speaks of weights and biases of the same neuron. A twin with random weights would say nothing: most
    families begin with biases of 0.

    Not defined where the MLP has no input bias (most gated ones): refused.

    Source: Gurnee, Nanda, Pauly, Harvey, Troitskii and Bertsimas 2023, "Finding Neurons in a Haystack:
    Case Studies with Sparse Probing", arXiv 2305.01610.

    Attributes:
        norm: "folded": weights and biases with the gain and offset of the norm before the MLP in them,
            as transformer-lens loads them and the paper has them; "own": as they are stored.
        seed: of the control.

    Result axes: layer, quantile (.2, .5, .8), unit, bin. Variables: product (layer, unit), and its
    weight_norm and bias; quantiles, shuffled_quantiles (layer, quantile); count (layer, bin), neurons with
    bin_low <= product < bin_high, in bins that all layers share; negative (layer), the share of biases
    below 0.

    >>> Superposition()(model).plot()  # doctest: +SKIP
    """

    norm: NormName = "folded"
    seed: int = 0

    name: ClassVar[str] = "superposition"
    title: ClassVar[str] = "Superposition statistics"
    needs_weights: ClassVar[bool] = True
    costly: ClassVar[bool] = True  # the same for every prompt
    needs_prompts: ClassVar[bool] = False
    long_targets: ClassVar[bool] = True
    citation: ClassVar[Citation] = Citation(
        "Input weight norms and biases of the neurons of {model} were compared (Gurnee et al., 2023; "
        "{settings})",
        GURNEE,
    )

    def __post_init__(self) -> None:
        one_of(self.name, "norm", self.norm, NORMS)
        if type(self.seed) is not int or self.seed < 0:
            raise SettingError(
                f"superposition: seed is {self.seed!r}: expected a whole number from 0"
            )

    def __call__(self, model: Model, prompts: Prompts = ".", **options: Any) -> Result:
        """The statistics of a model; prompts do not matter."""
        return super().__call__(model, prompts, **options)

    def prepare(self, model: Model) -> None:
        """Refuse models whose MLPs have no input bias."""
        inputs(model.weights, 1, self.norm)

    def reads(self, model: Model) -> Read:
        """Next to nothing: no block is run."""
        return Read([("resid_post", 0)], "last")

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Layers, quantiles and neurons; the ends of the bins."""
        ends = edges([one.product for one in self._inputs(model)]).tolist()
        return {
            "layer": list(range(1, model.n_layers + 1)),
            "quantile": list(QUANTILES),
            "bin_low": ("bin", [float("-inf"), *ends]),
            "bin_high": ("bin", [*ends, float("inf")]),
        }

    def start(self, model: Model) -> State:
        """Nothing."""
        return {}

    def update(self, state: State, captures: Captures) -> State:
        """Nothing: prompts say nothing of weights."""
        return state

    def merge(self, left: State, right: State) -> State:
        """Nothing."""
        return left

    def finish(self, state: State) -> Measured:
        """Nothing: it is the weights that speak."""
        return {}

    def conclude(self, state: State, model: Model) -> Measured:
        """The statistics."""
        found = self._inputs(model)
        products = [one.product for one in found]
        ends = edges(products)
        shuffled = [quantiles(one.shuffled(self.seed)) for one in found]
        return {
            "quantiles": Named(("layer", "quantile"), _each(map(quantiles, products)), PRODUCT),
            "shuffled_quantiles": Named(("layer", "quantile"), _each(shuffled), PRODUCT),
            "negative": Named(
                ("layer",), _each((one.bias < 0).double().mean() for one in found), "share"
            ),
            "count": Named(
                ("layer", "bin"), _each(histogram(one, ends) for one in products), "neurons"
            ),
            "product": Named(("layer", "unit"), _each(products), PRODUCT),
            "weight_norm": Named(("layer", "unit"), _each(one.size for one in found), "norm"),
            "bias": Named(("layer", "unit"), _each(one.bias for one in found), "pre-activation"),
        }

    def _inputs(self, model: Model) -> list[Inputs]:
        return [inputs(model.weights, layer, self.norm) for layer in range(1, model.n_layers + 1)]

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a layer; see `probes.superposition.rows`."""
        from probes.superposition.rows import rows

        return rows(data)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """Median with the 20% and 80% quantiles, the control, and the histogram."""
        from probes.superposition.panels import panels

        return panels(data)

    @classmethod
    def facts(
        cls,
        data: xr.Dataset,
        *,
        layer: int,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> list[tuple[str, str]]:
        """Quantiles of a layer, and the control's median."""
        from probes.superposition.panels import facts

        return facts(data, layer)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Quantiles along the layers."""
        from probes.superposition.report import section

        return section(rows, data)


def _each(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values))

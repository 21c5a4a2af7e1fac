"""The neuron view: what a neuron writes, where it is active, and how much."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lenses.neurons.state import bin_ends, empty, merged, seen
from lenses.projection import READOUTS, ReadoutName, project, readout_of
from workbench.errors import SettingError, UnsupportedError
from workbench.instrument import Citation, Measured, Named, SetLevel, State
from workbench.models.captures import Captures, Read
from workbench.models.positions import Positions, checked_positions
from workbench.models.protocol import Model
from workbench.models.sites import expand_sites

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["NeuronView"]

ENDS = ("promoted", "suppressed")
TOKEN_BYTES = 12  # of each token of a window
MOST_BYTES = 2**33  # of all windows
LEAST = {"top": 1, "top_k": 1, "contexts": 1, "window": 0}


@dataclass(frozen=True)
class NeuronView(SetLevel):
    """Neuron view: the MLP adds sum_k a_k v_k; what v_k says, and where a_k is large.

    Of each neuron k of one layer: its value vector v_k = W_out[k] read in the vocabulary, the most
    promoted and the most suppressed tokens; the contexts of its greatest activations over the prompt
    set, one a prompt, with the activation at every token of a window; a histogram of all activations,
    their exact number, least, greatest and mean, and the share above 0. In a gated MLP a_k is
    act(gate_k) up_k, which may be large and negative: the histogram shows both signs, contexts those
    of greatest value.

    Of equal activations the first position of a prompt counts; equal prompts' order is that of a hash of
    their tokens, so that shards merge into what one pass gives.

    Source: Geva, Schuster, Berant and Levy 2021, "Transformer Feed-Forward Layers Are Key-Value
    Memories", arXiv 2012.14913; value vectors in the vocabulary: Geva et al. 2022, arXiv 2203.14680.

    Attributes:
        layer: 1..L.
        neurons: indices in the layer, from 0; where empty, the `top` neurons are taken.
        top: how many neurons to take, those that write most: of largest mean |a_k| |v_k|. Every
            neuron of the layer is then followed, in 12 bytes a token of every window kept.
        top_k: tokens of each end of a value vector.
        contexts: how many contexts of each neuron.
        window: tokens before and after the greatest activation.
        positions: "all", "last", indices, a slice, or a role: what counts. "1:" leaves out the first
            token, where some models have activations like nowhere else.
        readout: how a value vector is read: "odd" (scale-free, no bias), or "paper", the model's own
            last step of it, or "normalized" (see `lenses.projection.readout_of`).

    Result axes: unit, bin, context, offset, end (promoted, suppressed), k. Variables: neuron (unit),
    its index; count (unit, bin), with the coordinates bin_low and bin_high of (low, high]; tokens,
    mean, low, high, positive (a share), written (mean |a_k| |v_k|), all (unit); context_value,
    context_position, context_key (unit, context), NaN and -1 where there are fewer prompts;
    context_token, context_activation (unit, context, offset); value_id, value_score (unit, end, k).

    >>> NeuronView(layer=3, neurons=[17])(model, prompts).plot()  # doctest: +SKIP
    """

    layer: int = 1
    neurons: Sequence[int] = ()
    top: int = 4
    top_k: int = 10
    contexts: int = 10
    window: int = 8
    positions: Positions = "all"
    readout: ReadoutName = "odd"

    name: ClassVar[str] = "neurons"
    title: ClassVar[str] = "Neurons"
    needs_weights: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    long_targets: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {"positive": (0.0, 1.0), "written": (0.0, math.inf)}
    )
    citation: ClassVar[Citation] = Citation(
        "Neurons of {model} were described by their value vectors in the vocabulary, their top contexts "
        "and their activations (Geva et al., 2021; {settings})",
        "@inproceedings{geva2021transformer,\n"
        "  title     = {Transformer Feed-Forward Layers Are Key-Value Memories},\n"
        "  author    = {Geva, Mor and Schuster, Roei and Berant, Jonathan and Levy, Omer},\n"
        "  booktitle = {Proceedings of EMNLP},\n"
        "  year      = {2021},\n"
        "  note      = {arXiv:2012.14913}\n"
        "}",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.neurons, int | Iterable):
            raise SettingError(f"neurons: {self.neurons!r}: expected indices in the layer, from 0")
        given = (self.neurons,) if isinstance(self.neurons, int) else tuple(self.neurons)
        object.__setattr__(self, "neurons", given)
        object.__setattr__(self, "positions", checked_positions(self.positions))
        for name, least in LEAST.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise SettingError(
                    f"neurons: {name} is {value!r}: expected a whole number, at least {least}"
                )
        if len(set(given)) < len(given) or any(type(one) is not int or one < 0 for one in given):
            raise SettingError(
                f"neurons: {list(given)}: expected distinct indices in the layer, from 0"
            )
        if self.readout not in READOUTS:
            raise SettingError(
                f"neurons: readout is {self.readout!r}: expected one of {', '.join(READOUTS)}"
            )

    def prepare(self, model: Model) -> None:
        """Refuse a layer or a neuron that is not there, and value vectors that cannot be read."""
        expand_sites([("mlp_act", self.layer)], model.n_layers)
        width = len(model.weights.neurons(self.layer))
        if outside := [neuron for neuron in self.neurons if neuron >= width]:
            raise SettingError(
                f"neurons: no neuron {outside[0]} in layer {self.layer}: expected 0..{width - 1}"
            )
        if self.top > width:
            raise SettingError(
                f"neurons: top is {self.top}: layer {self.layer} has {width} neurons"
            )
        if self.top_k > model.vocab_size:
            raise SettingError(
                f"neurons: top_k is {self.top_k}: the vocabulary has {model.vocab_size}"
            )
        self._require_room(len(self.neurons) or width)
        if self.readout == "odd":
            _require_linear(model)

    def _require_room(self, followed: int) -> None:
        """Refuse contexts that no memory holds."""
        size = followed * self.contexts * (2 * self.window + 1) * TOKEN_BYTES
        if size > MOST_BYTES:
            raise SettingError(
                f"neurons: contexts={self.contexts} with window={self.window} of {followed} neurons take "
                f"{size / 2**30:.0f} GiB: expected at most {MOST_BYTES / 2**30:.0f}; give fewer, or neurons"
            )

    def reads(self, model: Model) -> Read:
        """The activations of the layer's neurons."""
        return Read([("mlp_act", self.layer)], self.positions)

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Contexts, offsets from the greatest activation, ends, k, and the ends of the bins."""
        low, high = bin_ends()
        return {
            "context": list(range(1, self.contexts + 1)),
            "offset": list(range(-self.window, self.window + 1)),
            "end": list(ENDS),
            "k": list(range(1, self.top_k + 1)),
            "bin_low": ("bin", low),
            "bin_high": ("bin", high),
        }

    def start(self, model: Model) -> State:
        """Nothing seen, and the lengths of the value vectors."""
        lengths = model.weights.neurons(self.layer).norm(dim=1).double().cpu()
        lengths = lengths[list(self.neurons)] if self.neurons else lengths
        known = empty(len(lengths), self.contexts, self.window, model.dtype)
        return {**known, "length": lengths}

    def update(self, state: State, captures: Captures) -> State:
        """One more batch."""
        acts = captures["mlp_act", self.layer]
        acts = acts[:, list(self.neurons)] if self.neurons else acts
        return self.merge(state, seen(captures, acts, self.contexts, self.window))

    def merge(self, left: State, right: State) -> State:
        """Both together."""
        return {**merged(left, right), "length": left["length"]}

    def finish(self, state: State) -> Measured:
        """The numbers of the neurons that were asked for, or of those that write most."""
        tokens = state["tokens"].double()
        written = state["size"] / tokens * state["length"]
        chosen = self._chosen(written)
        named = {
            "neuron": Named(("unit",), self._indices(chosen), "neuron index"),
            "tokens": Named(("unit",), state["tokens"].expand(len(chosen)), "tokens"),
            "mean": Named(("unit",), (state["sum"] / tokens)[chosen], "activation"),
            "low": Named(("unit",), state["low"][chosen], "activation"),
            "high": Named(("unit",), state["high"][chosen], "activation"),
            "positive": Named(("unit",), (state["positive"] / tokens)[chosen], "share"),
            "written": Named(("unit",), written[chosen], "residual stream units"),
            "count": Named(("unit", "bin"), state["counts"][chosen], "tokens"),
        }
        return named | _contexts(state, chosen)

    def conclude(self, state: State, model: Model) -> Measured:
        """That, and what their value vectors say."""
        found = dict(self.finish(state))
        vectors = _added(model, self.layer, found["neuron"].values)
        read = readout_of(
            self.readout,
            model.weights,
            lambda rows: model.readout(rows.to(model.dtype)),
            vectors,
            descending=False,
        )
        none = torch.empty(0, len(vectors), dtype=torch.int64, device=vectors.device)
        best = project(vectors, read, k=self.top_k, followed=none)
        worst = project(vectors, lambda rows: -read(rows), k=self.top_k, followed=none)
        ends = ("unit", "end", "k")
        found["value_id"] = Named(ends, torch.stack([best.ids, worst.ids], dim=1), "token id")
        found["value_score"] = Named(
            ends, torch.stack([best.scores, -worst.scores], dim=1), "logit"
        )
        return found

    def _chosen(self, written: Tensor) -> Tensor:
        """Rows of the state: all that were asked for, or those that write most."""
        if self.neurons:
            return torch.arange(len(self.neurons))
        return written.argsort(descending=True, stable=True)[: self.top]

    def _indices(self, chosen: Tensor) -> Tensor:
        """Indices in the layer of rows of the state."""
        return torch.tensor(self.neurons)[chosen] if self.neurons else chosen

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """Rows of four kinds: summary, value, context and histogram; see `lenses.neurons.rows`."""
        from lenses.neurons.rows import rows

        return rows(data)

    @classmethod
    def figure(
        cls,
        data: xr.Dataset,
        *,
        theme: str = "light",
        prompt: str | int | None = None,
        selected: tuple[int, int] | None = None,
        **options: Any,
    ) -> go.Figure:
        """Value vector, histogram and contexts of one neuron, with a list to choose it from.

        Args:
            data, theme: as for every instrument.
            prompt, selected: have no meaning here, where a result speaks of all prompts.
            options: `neuron`, the index of the one to begin with; the first where it is not given.
        """
        from lenses.neurons.figures import figure

        return figure(data, theme=theme, **options)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """None: a neuron is of one layer."""
        return []

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """A page for each neuron: what it writes, and where it is active."""
        from lenses.neurons.report import section

        return section(rows, data)


def _require_linear(model: Model) -> None:
    """Refuse a last step that is not linear."""
    try:
        model.weights.unembedding  # noqa: B018 - it refuses
    except UnsupportedError as error:
        raise UnsupportedError(f"{error}; give readout=paper") from None


def _added(model: Model, layer: int, neurons: Tensor) -> Tensor:
    """[units, d] what the neurons add to the residual stream, but for the scale of a norm after it."""
    weights = model.weights
    vectors = weights.neurons(layer)
    vectors = vectors[neurons.to(vectors.device)]
    after = weights.branch_norm(weights.last_mlp_map, layer)
    return vectors if after is None else after[1].linear(vectors)


def _contexts(state: State, chosen: Tensor) -> dict[str, Named]:
    """The contexts of some rows of the state; NaN and -1 where there are fewer."""
    value = state["value"][chosen]
    there = value.isfinite()
    whole = {name: torch.where(there, state[name][chosen], -1) for name in ("position", "key")}
    cell, wide = ("unit", "context"), ("unit", "context", "offset")
    return {
        "context_value": Named(cell, torch.where(there, value, math.nan), "activation"),
        "context_position": Named(cell, whole["position"], "position"),
        "context_key": Named(cell, whole["key"], "hash of the prompt's tokens"),
        "context_token": Named(wide, state["token"][chosen], "token id"),
        "context_activation": Named(wide, state["activation"][chosen], "activation"),
    }

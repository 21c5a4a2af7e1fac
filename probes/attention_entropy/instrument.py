"""Sharpness of attention: entropy over visible keys, effective temperature, sinks, growth with context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from probes.attention_entropy.measured import betas, cosines, sharpness, uniform
from probes.bibliography import GESHKOVSKI
from probes.twins import why_no_twin
from workbench.errors import UnsupportedError
from workbench.instrument import Citation, Measured, Named, Reading
from workbench.models.captures import Captures, Read
from workbench.models.positions import Positions, checked_positions
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.models.visible import visible_keys

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["AttentionEntropy"]

UNITS = MappingProxyType(
    {
        "entropy": "nat",
        "sink": "attention weight",
        "top_sink": "attention weight",
        "top_sink_position": "position",
    }
)


@dataclass(frozen=True)
class AttentionEntropy(Reading):
    """Entropy of every head over the keys that it can see, its effective temperature, and its sinks.

    With a_qk the weight of query q on key k, p = a_q / sum_k a_qk, and n the keys that the mask
    lets q see (a sliding window hides some):
      entropy         H = -sum_k p_k ln p_k in nat; entropy_share = H / ln n. 1 is uniform.
      effective_beta  the beta at which softmax_k(beta cos(x_q, x_k)) has the same H, x being the
                      block's input (resid_post of the layer below). It is the inverse temperature
                      at which self-attention on the sphere with Q^T K = I is as sharp as this
                      head; it matches the entropy alone, not which keys are looked at.
      sink            a_q0, on the first token.
      top_sink        max_k of mean_q a_qk over the queries read: the share of all its attention
                      that the most attended key draws; top_sink_position is that key.
    All are NaN where n = 1, effective_beta also where no beta has that entropy (keys whose states
    tie).

    Growth with context, in rows, figure and report: the slope of H on ln n over a prompt's queries
    with at least 4 visible keys. Uniform attention has 1; attention that is entropy-invariant, which
    scaling scores by ln n aims at, has 0. In one prompt a query's n and its place are the same
    thing, so that a slope holds for text as it was read, and its interval is over prompts.

    Controls: uniform attention over the visible keys (`*_uniform`), and the untrained twin
    (`entropy_twin`), whose attention is close to uniform because its scores are small.

    Sources: Ghader and Monz 2017 (entropy of attention); Geshkovski et al. 2025, arXiv 2312.10794
    (beta); Xiao et al. 2023, arXiv 2309.17453 (sinks); Chiang and Cholak 2022, arXiv 2202.12172
    (ln n).

    Attributes:
        positions: the queries: "all", "last", indices, a slice, or a role. The patterns of all
            layers are held at once, queries x heads x keys x layers numbers a prompt: take some of
            the positions of long prompts.
        beta: whether to find effective_beta, for which states are read at every position.
        twin: whether to read the untrained twin, which costs a second pass; left out of models above
            1 B parameters.
        seed: of the twin.

    Result axes: layer (1..L), head (0..H-1), place (the queries). Variables: entropy, entropy_share,
    entropy_twin, effective_beta, sink, top_sink, top_sink_position (layer, head, place);
    visible_keys, entropy_uniform, sink_uniform, top_sink_uniform (layer, place).

    Raises:
        UnsupportedError: a family that computes attention in code of its own, or two stacks.
        ResultError: a store of activations, which has no patterns.

    >>> AttentionEntropy()(model, "The Eiffel Tower is in").plot(head=1)  # doctest: +SKIP
    """

    positions: Positions = "all"
    beta: bool = True
    twin: bool = True
    seed: int = 0

    name: ClassVar[str] = "attention_entropy"
    title: ClassVar[str] = "Attention entropy"
    costly: ClassVar[bool] = True
    long_targets: ClassVar[bool] = True
    citation: ClassVar[Citation] = Citation(
        "Entropy of attention over visible keys in {model} was measured per head beside uniform "
        "attention and an untrained twin ({settings}); effective inverse temperatures are those of "
        "the self-attention model of Geshkovski et al. (2025) at equal entropy",
        GESHKOVSKI,
    )
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        dict.fromkeys(("entropy_share", "sink", "top_sink"), (0.0, 1.0))
        | dict.fromkeys(("entropy", "entropy_twin", "effective_beta"), (0.0, float("inf")))
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", checked_positions(self.positions))

    def prepare(self, model: Model) -> None:
        """Refuse a model of two stacks, whose decoder reads one token of its own."""
        if len(model.stacks) > 1:
            raise UnsupportedError(
                f"{self.name}: {model.name} has two stacks: expected a model of one (the instrument "
                "attention has the entropy of each stack)"
            )

    def remarks(self, model: Model) -> Sequence[str]:
        """Why the twin is left out, where it is."""
        why = why_no_twin(model) if self.twin else None
        return [] if why is None else [f"No control by an untrained twin: {why}."]

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Layers 1..L and heads 0..H-1."""
        return {
            "layer": list(range(1, model.n_layers + 1)),
            "head": list(range(model.n_heads)),
        }

    def reads(self, model: Model) -> Read:
        """Patterns at the queries, and every block's input at every position."""
        states = [("resid_post", layer) for layer in range(model.n_layers)] if self.beta else []
        return Read("pattern", self.positions, everywhere=states)

    def measure(self, captures: Captures) -> Measured:
        """Refused: captures alone do not say what a token sees.

        Raises:
            UnsupportedError: always; use `measure_beside`.
        """
        raise UnsupportedError(
            f"{self.name}: captures do not say what a token sees: measure it on the model"
        )

    def measure_beside(self, captures: Captures, model: Model) -> Measured:
        """Everything, a layer at a time; the twin's entropy beside it."""
        twin = None
        if self._has_twin(model):
            twin = model.twin(self.seed).capture(captures.batch, "pattern", self.positions)
        layers = captures.layers("pattern")
        columns = [self._of_layer(captures, twin, model, layer) for layer in layers]
        return {
            name: Named(
                ("layer", *first.dims), torch.stack([it[name].values for it in columns]), first.unit
            )
            for name, first in columns[0].items()
        }

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """The twin's pass."""
        return sum(map(len, prompts)) * model.n_layers if self._has_twin(model) else 0

    def _has_twin(self, model: Model) -> bool:
        return self.twin and why_no_twin(model) is None

    def _of_layer(
        self, captures: Captures, twin: Captures | None, model: Model, layer: int
    ) -> dict[str, Named]:
        pattern, row = captures["pattern", layer], captures.places.row
        seen = _seen(captures, model, layer)
        own, even = sharpness(pattern, seen, row), uniform(seen, row)
        by_head = ("head", "place")
        found = {name: Named(by_head, own[name], unit) for name, unit in UNITS.items()}
        found["entropy_share"] = Named(by_head, own["entropy"] / even["entropy"], "share")
        if self.beta and captures.everywhere is not None:
            scores = cosines(captures.everywhere, layer - 1, captures.places, seen.shape[1])
            found["effective_beta"] = Named(by_head, betas(scores, own["entropy"], seen), "1")
        if twin is not None:
            other = sharpness(twin["pattern", layer], seen, row)
            found["entropy_twin"] = Named(by_head, other["entropy"], "nat")
        for name, value in even.items():
            found[f"{name}_uniform"] = Named(("place",), value, UNITS[name])
        return found | {"visible_keys": Named(("place",), seen.sum(-1), "token")}

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, layer, head): means over the queries read, controls, and growth."""
        from probes.attention_entropy.rows import rows

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
        """Layer by head, and one layer's entropy against the number of visible keys.

        Args:
            prompt: id of the prompt; all of them where None.
            options: `head`, one to be marked beside those of least and greatest slope.
        """
        from probes.attention_entropy.figures import figure

        return figure(data, theme=theme, prompt=prompt, selected=selected, **options)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """Of one query: entropy share, effective beta and sink by head; entropy beside controls."""
        from probes.attention_entropy.panels import panels

        return panels(data, prompt=prompt, position=position)

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
        """The sharpest and the most spread head of one query, its visible keys, and the largest sink."""
        from probes.attention_entropy.panels import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Entropy and its growth over the prompts, beside the controls; heads that stand out."""
        from probes.attention_entropy.report import section

        return section(rows)


def _seen(captures: Captures, model: Model, layer: int) -> Tensor:
    """[N, keys] what the mask of a layer lets the queries see."""
    width = captures["pattern", layer].shape[-1]
    lengths = captures.batch.mask.sum(-1)[captures.places.row]
    there = torch.arange(width, device=lengths.device) < lengths[:, None]
    position = captures.places.position
    return visible_keys(there, position, causal=model.causal, window=model.window(layer))

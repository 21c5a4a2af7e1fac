"""Input attribution: how much of each token reaches a place, by what attention does with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from lenses.attention.keys import Keys
from lenses.inputs.attended import BY_HEAD, BY_LAYER, GRADIENTS, METHODS, attended
from lenses.inputs.gradients import (
    Followed,
    gradient_x_input,
    integrated_gradients,
    require_captum,
)
from workbench.errors import SettingError, TargetError, UnsupportedError
from workbench.instrument import Citation, Driving, Measured, Named
from workbench.models.batch import Batch, Places
from workbench.models.positions import Positions, checked_positions
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["METHODS", "InputAttribution"]

MOST_KEPT = 2**28  # bytes of one prompt's result
HALF = (
    "{dtype}: a gradient that came back through every block in so few bits can be mostly rounding "
    "(gradient x input was up to 0.6 of its own size off on the bundled model in bfloat16); measure "
    "gradients in float32"
)


@dataclass(frozen=True)
class InputAttribution(Driving):
    """Input attribution: raw attention, value-weighted norms, ALTI, rollout, gradients.

    Of query i and key j, with a the pattern, v the values, W_O^h a head's part of the output map:
      raw                  a_ij of each head.
      value_norm           ||a_ij v_j W_O^h|| of each head (Kobayashi et al. 2020), before the norm
                           that post-norm families put behind attention.
      alti                 y_i = sum_j T_ij + bias is the stream after attention (after the norm, in
                           BERT), T_ij = sum_h a_ij v_j W_O^h plus, for j = i, the stream x_i; a norm
                           behind attention is made linear by holding its scale. c_ij ~
                           max(||y_i||_1 - ||y_i - T_ij||_1, 0), rows sum to 1 (Ferrando et al. 2022).
                           MLPs are left out, as there.
      rollout              R_l = A_l R_(l-1), A_l = (mean_h a + I) / 2 (Abnar & Zuidema 2020).
      alti_rollout         the same product of ALTI's matrices.
      gradient_x_input     (d logit / d h_0j) . h_0j of the target's logit, less the foil's.
      integrated_gradients the integral of that gradient from a baseline (Sundararajan et al. 2017;
                           needs the extra [attribution]); integrated_gradients_residual says how
                           far the sum is from f(input) - f(baseline), the error of the rule.
    h_0 is the embedding, with positions where the family adds them. Gradients are absent (NaN) but
    where the target is predicted. Raw attention and rollout say where attention looks, not what
    the model uses; hold them against the gradients or against an ablation.

    Attributes:
        methods: some of raw, value_norm, alti, rollout, alti_rollout, gradient_x_input,
            integrated_gradients.
        positions: the queries: "all", "last", indices, a slice, or a role.
        steps: points of the rule of integrated gradients.
        baseline: of integrated gradients, "mean" (every token is the prompt's mean embedding) or
            "zero", near which a norm turns so fast that the rule may not converge: see the residual.

    Result axes: layer (1..L), head (0..H-1), place (the queries), key. Variables: one a method,
    with head for raw and value_norm, with layer for these, alti and the rollouts; NaN beyond a
    prompt's end; key_id (place, key).

    Raises:
        UnsupportedError: a family that computes attention in code of its own (but for gradients),
            or of two stacks.
        TargetError: gradients of a prompt without a target.

    >>> found = InputAttribution()(model, "The capital of France is")  # doctest: +SKIP
    >>> found.plot(method="alti_rollout")  # doctest: +SKIP
    """

    methods: Sequence[str] = (*BY_HEAD, *BY_LAYER)
    positions: Positions = "last"
    steps: int = 64
    baseline: Literal["mean", "zero"] = "mean"

    name: ClassVar[str] = "input_attribution"
    title: ClassVar[str] = "Input attribution"
    costly: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True
    citation: ClassVar[Citation] = Citation(
        "What reached a place of {model} was attributed to input tokens by value-weighted norms "
        "(Kobayashi et al., 2020), ALTI (Ferrando et al., 2022), attention rollout (Abnar & Zuidema, "
        "2020) and gradients ({settings})",
        "@inproceedings{ferrando2022measuring,\n"
        "  title     = {Measuring the Mixing of Contextual Information in the Transformer},\n"
        "  author    = {Ferrando, Javier and G{\\'a}llego, Gerard I. and Costa-juss{\\`a}, Marta R.},\n"
        "  booktitle = {EMNLP},\n"
        "  year      = {2022}\n"
        "}",
    )
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType({})

    def __post_init__(self) -> None:
        if isinstance(self.methods, str):
            object.__setattr__(self, "methods", tuple(self.methods.split(",")))
        object.__setattr__(self, "positions", checked_positions(self.positions))
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods or len(set(self.methods)) < len(self.methods):
            raise SettingError(
                f"input_attribution: methods {list(self.methods)}: expected some of {', '.join(METHODS)}, "
                "each once"
            )
        if type(self.steps) is not int or self.steps < 1:
            raise SettingError(
                f"input_attribution: steps is {self.steps!r}: expected a whole number, at least 1"
            )
        if self.baseline not in ("zero", "mean"):
            raise SettingError(
                f"input_attribution: baseline is {self.baseline!r}: expected zero or mean"
            )

    def prepare(self, model: Model) -> None:
        """Refuse a model of two stacks, and integrated gradients without captum."""
        if len(model.stacks) > 1:
            raise UnsupportedError(
                f"input_attribution: {model.name} has two stacks, and its decoder one token of its own: "
                "use attention with kind=cross"
            )
        if "integrated_gradients" in self.methods:
            require_captum()

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt without a target, or whose foil is the same, where gradients are asked for."""
        if not {*GRADIENTS} & {*self.methods}:
            return
        if prompt.target is None:
            raise TargetError(
                f"input_attribution: prompt {prompt.text[:40]!r} has no target, and gradients are of the "
                "target's logit: give one, or leave gradient_x_input and integrated_gradients out"
            )
        if prompt.foil == prompt.target:
            raise TargetError(
                f"input_attribution: prompt {prompt.text[:40]!r} has {prompt.prompt.target!r} as target and "
                "as foil, whose difference has no gradient: give another foil or none"
            )

    def remarks(self, model: Model) -> Sequence[str]:
        """What 16 bit do to gradients at the embedding."""
        if model.dtype.itemsize > 2 or not {*GRADIENTS} & {*self.methods}:
            return []
        return [HALF.format(dtype=str(model.dtype).removeprefix("torch."))]

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Layers 1..L and heads 0..H-1."""
        return {
            "layer": list(range(1, model.n_layers + 1)),
            "head": list(range(model.n_heads)),
        }

    def drive(self, model: Model, batch: Batch) -> tuple[Places, Measured]:
        """Attribute block by block; gradients by passes of their own."""
        batch = batch.padded_right()
        queries = batch.places(self.positions)
        keys = Keys.of(batch, queries, causal=model.causal)
        self._require_room(model, keys)
        found = {"key_id": Named(("place", "key"), keys.ids, "token id")}
        through_attention = [name for name in self.methods if name not in GRADIENTS]
        if through_attention:
            found |= attended(model, batch, queries, through_attention)
        if len(through_attention) < len(self.methods):
            found |= self._gradients(model, batch, queries)
        return queries, found

    def _require_room(self, model: Model, keys: Keys) -> None:
        """Refuse a result of one prompt that is too large to keep.

        Raises:
            SettingError: says how large it is, and what to set.
        """
        each = sum(
            model.n_layers * (model.n_heads if name in BY_HEAD else 1) for name in self.methods
        )
        lengths = (keys.tokens >= 0).sum(-1)
        queries = torch.bincount(keys.row, minlength=len(lengths))
        size = int((queries * lengths).max()) * each * 4
        if size > MOST_KEPT:
            raise SettingError(
                f"input_attribution: the weights of a prompt of {int(lengths.max())} tokens take "
                f"{size / 2**20:,.0f} MiB, at most {MOST_KEPT / 2**20:.0f} are kept: set positions= or "
                "methods="
            )

    def _gradients(self, model: Model, batch: Batch, queries: Places) -> dict[str, Named]:
        at = "last" if model.causal else "mask"
        followed = Followed.of(model, batch, at)
        here = _predicting(batch.places(at), queries)
        found = {}
        if "gradient_x_input" in self.methods:
            found["gradient_x_input"] = gradient_x_input(followed)
        if "integrated_gradients" in self.methods:
            found["integrated_gradients"], residual = integrated_gradients(
                followed, self.baseline, self.steps
            )
            found["integrated_gradients_residual"] = residual
        inside = batch.mask.bool()
        return {name: _at_queries(value, queries, here, inside) for name, value in found.items()}

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, method, layer, head, query, key)."""
        from lenses.inputs.rows import rows

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
        """Key tokens by layer for one query.

        Args:
            options: `method`; `head`, of a method that has heads, their mean (raw) or sum where None.
        """
        from lenses.inputs.figures import figure

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
        """Layer by position of the key, for the query at `position`."""
        from lenses.inputs.figures import panels

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
        """Of each method, the key that brings most to the query at `position`."""
        from lenses.inputs.figures import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """How much of each place is its own token's, by method and layer."""
        from lenses.inputs.report import section

        return section(rows)


def _predicting(ends: Places, queries: Places) -> Tensor:
    """[N] whether a query is where its prompt's target is predicted."""
    pairs = zip(ends.row.tolist(), ends.position.tolist(), strict=True)
    known = set(pairs)
    asked = zip(queries.row.tolist(), queries.position.tolist(), strict=True)
    return torch.tensor([pair in known for pair in asked], device=queries.row.device)


def _at_queries(value: Tensor, queries: Places, here: Tensor, inside: Tensor) -> Named:
    """Values [rows, keys] or [rows] by query, NaN where nothing is predicted and on padding."""
    if value.ndim == 1:
        return Named(("place",), torch.where(here, value[queries.row], torch.nan), "logit")
    shown = here[:, None] & inside[queries.row]
    return Named(("place", "key"), torch.where(shown, value[queries.row], torch.nan), "logit")

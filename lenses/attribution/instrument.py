"""Direct logit attribution: which components write the logit, along the frozen last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.errors import SettingError, TargetError, UnsupportedError
from workbench.instrument import Citation, Measured, Reading
from workbench.models.captures import Captures, Read
from workbench.models.positions import Positions, checked_positions
from workbench.models.protocol import Model
from workbench.models.sites import SiteRequest
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["DirectAttribution"]

SPLITS = ("components", "heads", "sources", "neurons")


@dataclass(frozen=True)
class DirectAttribution(Reading):
    """Direct logit attribution: what each component writes into a token's logit.

    logit = sum over components c of c . u~, plus biases, where u~ is the unembedding direction u
    taken back through the final norm, whose scale is held at what it is at the place:
    u~ = (gain u - mean(gain u)) / scale, without the mean for an RMSNorm. With a target and a foil,
    u = W_U[target] - W_U[foil]; with a target alone, u is W_U[target] less the mean of the vocabulary,
    as a logit by itself changes when the same is added to all. Where a prompt has no target, the
    model's own top token at each place is taken for one.

    The splits go further down, each by the same rule: a head is its part of attention's output; a
    source is what a head moves from one position, alpha v . (W_O u~); a neuron is its activation times
    its value vector . u~. Where a norm stands between a branch and the stream (Gemma 2 and 3, OLMo 2)
    its scale is held too. The parts and the biases beside them add up, at every level.

    What a component does *through* later components is not in this. Contributions are to the logit
    before a soft-cap, where the family has one (Gemma 2).

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; the difference to
    a foil as in Wang et al. 2022, "Interpretability in the Wild", arXiv 2211.00593.

    Attributes:
        split: some of heads, sources (head by source position) and neurons; components (the embedding
            and what each branch adds) are always given.
        top: how many sources of each head and neurons of each layer are named; the others are given
            as one sum.
        positions: "all", "last", indices, a slice, or a role such as "last_subject".

    Result axes: component, layer, place, head, k. Variables, in units of the logit: contribution
    (component, layer, place) of embed (layer 0, with position embeddings), attn_out, mlp_out and, in a
    model with an encoder, cross_attn_out; norm_bias and unembed_bias (place), what the final norm's
    offset and the unembedding's bias add; logit (place), the model's own along the direction; residual
    (place), the sum of all these less the logit. With heads or sources: head_contribution (layer,
    head, place), attn_bias (layer, place). With sources: source_contribution, source_position and
    source_token_id (layer, place, head, k), source_rest (layer, place, head). With neurons:
    neuron_contribution and neuron_unit (layer, place, k), neuron_rest and mlp_bias (layer, place).
    split_residual (place): the largest difference, at any layer, of a part and the sum of its split.
    target_id, foil_id (place; -1 where the vocabulary's mean stands for the foil), target_given
    (place; 0 for the model's own top token), capped (place; 1 where a soft-cap follows), vocabulary
    (token_id). Heads and neurons are counted from 0. NaN (-1 for numbers of things) where there is no
    such term.

    In float32 the residual is a few 1e-7 of the logit's size; in half precision the model's own
    roundings between blocks are in it.

    >>> DirectAttribution()(model, wb.Prompt(text, target=" Paris", foil=" Rome"))  # doctest: +SKIP
    """

    split: Sequence[str] = ("components", "heads")
    top: int = 10
    positions: Positions = "all"

    name: ClassVar[str] = "direct_attribution"
    title: ClassVar[str] = "Direct attribution"
    needs_weights: ClassVar[bool] = True
    citation: ClassVar[Citation] = Citation(
        "Logits of {model} were attributed to components by their direct effect, with the scale of "
        "the final norm held (Elhage et al., 2021; {settings})",
        "@article{elhage2021mathematical,\n"
        "  title   = {A Mathematical Framework for Transformer Circuits},\n"
        "  author  = {Elhage, Nelson and Nanda, Neel and Olsson, Catherine and others},\n"
        "  journal = {Transformer Circuits Thread},\n"
        "  year    = {2021}\n"
        "}",
    )

    def __post_init__(self) -> None:
        given = self.split.split(",") if isinstance(self.split, str) else self.split
        object.__setattr__(self, "split", tuple(given))
        object.__setattr__(self, "positions", checked_positions(self.positions))
        unknown = [name for name in self.split if name not in SPLITS]
        if unknown or not self.split or len(set(self.split)) < len(self.split):
            found = ", ".join(map(repr, unknown or self.split)) or "empty"
            raise SettingError(
                f"direct_attribution: split is {found}: expected some of {', '.join(SPLITS)}, each once"
            )
        if type(self.top) is not int or self.top < 1:
            raise SettingError(
                f"direct_attribution: top is {self.top!r}: expected a whole number, at least 1"
            )

    def prepare(self, model: Model) -> None:
        """Refuse a model whose parts do not add up to its logits, or cannot be split as asked.

        Raises:
            UnsupportedError: it has no such weights (BERT, quantised, experts), or another engine is
                needed.
        """
        weights = model.weights
        branches, _ = weights.branches, weights.unembedding
        if "sources" in self.split and "cross_attn_out" in branches:
            raise UnsupportedError(
                "direct_attribution: split 'sources' of a model with an encoder: its decoder attends to "
                "its start token alone; leave it out"
            )
        maps = ["o"] * self._by_head + [weights.last_mlp_map] * ("neurons" in self.split)
        for name, layer in product(maps, range(1, model.n_layers + 1)):
            weights.map(name, layer)

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt whose foil is its target, or that has a foil alone."""
        if prompt.foil is None:
            return
        if prompt.target is None:
            raise TargetError(
                f"direct_attribution: prompt {prompt.text[:40]!r} has a foil, "
                f"{prompt.prompt.foil!r}, and no target: give it a target too"
            )
        if prompt.foil == prompt.target:
            raise TargetError(
                f"direct_attribution: prompt {prompt.text[:40]!r} has {prompt.prompt.target!r} as target "
                "and as foil, whose difference is 0 in every component: give another foil or none"
            )

    @property
    def _by_head(self) -> bool:
        """Whether heads are given: what is split by source is split by head."""
        return "heads" in self.split or "sources" in self.split

    def reads(self, model: Model) -> Read:
        """What each branch adds, the first and the last state, and what the splits are made of."""
        own = {
            "z": self._by_head,
            "pattern": "sources" in self.split,
            "mlp_act": "neurons" in self.split,
        }
        sites: list[SiteRequest] = [*model.weights.branches, "final_norm"]
        sites += [("resid_post", 0), ("resid_post", model.n_layers)]
        sites += [name for name, wanted in own.items() if wanted]
        return Read(sites, self.positions, everywhere=["v"] if "sources" in self.split else [])

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Components, layers 0..L, heads counted from 0, and k = 1.. ."""
        return {
            "component": ["embed", *model.weights.branches],
            "layer": list(range(model.n_layers + 1)),
            "head": list(range(model.n_heads)),
            "k": list(range(1, self.top + 1)),
        }

    def measure(self, captures: Captures) -> Measured:
        """Fold the last step into one direction a place, and take every component along it."""
        from lenses.attribution.measured import measured

        if captures.weights is None:
            raise UnsupportedError(
                "direct_attribution reads the model's weights, which these captures lack: measure it on "
                "the model"
            )
        return measured(captures, captures.weights, self.split, self.top)

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a term; the keys are those of the command line."""
        from lenses.attribution.rows import rows

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
        """Layers by component and by head at one position, and what is attributed, in words."""
        from lenses.attribution.figures import figure

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
        """Attention, MLP and embedding as bars, heads as a heat map, the largest parts as words."""
        from lenses.attribution.panels import panels

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
        """What is attributed, the layer's terms, the logit and what is missing from the sum."""
        from lenses.attribution.facts import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Mean contributions by layer, the heads that stand out, and the worst residual."""
        from lenses.attribution.report import section

        return section(rows)

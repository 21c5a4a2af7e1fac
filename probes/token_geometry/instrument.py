"""Tokens of one prompt as points on a sphere, layer by layer, and their cosines in one order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from probes.bibliography import GESHKOVSKI
from probes.particles.corpus import BUNDLED, Corpus, LayerMeans
from probes.token_geometry.by_prompt import mean_cosines, of_prompts
from probes.twins import why_no_twin
from workbench.errors import PromptError, SettingError, UnsupportedError
from workbench.instrument import Citation, Measured, Named, Reading
from workbench.models.captures import Captures, Read
from workbench.models.positions import Positions, checked_positions, resolve_positions
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt
from workbench.store.activations import Store

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["TokenGeometry"]

MOST_TOKENS = 128  # pairs at every layer: more cannot be told apart in a picture, either
AXES = ("first", "second", "third")


@dataclass(frozen=True)
class TokenGeometry(Reading):
    """A prompt's tokens as directions u = x / ||x|| of their residual states, layer by layer.

      cosine        u_i . u_j of every pair of tokens.
      order         one order of the tokens for all layers and views: average linkage on 1 - cosine
                    at `order_layer`, frozen, so that what moves between two layers is the tokens.
      point         coordinates in the three principal directions (about the origin) of all tokens
                    at all layers together, of each view; `captured` is the mean of ||point||^2, the
                    share of the directions that the picture holds at that layer.
      mean_cosine   over pairs of different tokens, beside the untrained twin's.
      norm          ||x||, since directions say nothing of it. No token is left out: a first token of
                    very large norm is seen as one.

    Two views. In most models raw states share a direction, so that cosines are high before anything
    is said of a prompt; `centred` takes off each layer's mean over a held-out corpus. The prompt's own
    mean is never taken off: any n states would then cancel. The order is that of the centred view
    where there is one.

    Sources: Geshkovski et al. 2025, arXiv 2312.10794 (tokens as particles on a sphere); Bar-Joseph
    et al. 2001 (the order).

    Attributes:
        order_layer: 0..L, where the order is made; None for half of the way, (L + 1) // 2.
        centred: whether to show the centred view, too; a store has none.
        corpus: a prompt file whose mean is taken off, of at least 1,000 tokens; bundled sentences
            where empty.
        positions: the tokens: "all", "last", indices, a slice, or a role; at most 128 a prompt.
        twin: whether to read the untrained twin, which costs a second pass; left out of stores and
            of models above 1 B parameters.
        seed: of the twin.

    Result axes: view (raw, centred), layer (0..L), place, other (the tokens of the place's prompt,
    as read), axis (three). Variables: cosine (view, layer, place, other), point (view, layer, place,
    axis), order (place), norm (layer, place), captured, mean_cosine, mean_cosine_twin (view, layer,
    place; of the prompt).

    Raises:
        PromptError: a prompt with more tokens than a picture can hold.
        SettingError: no such layer, a prompt that stands in the corpus, or too short a corpus.

    >>> TokenGeometry()(model, "The Eiffel Tower is in").plot()  # doctest: +SKIP
    """

    order_layer: int | None = None
    centred: bool = True
    corpus: str = BUNDLED
    positions: Positions = "all"
    twin: bool = True
    seed: int = 0

    name: ClassVar[str] = "token_geometry"
    title: ClassVar[str] = "Token geometry"
    costly: ClassVar[bool] = True
    long_targets: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("corpus",)
    prompt_files: ClassVar[tuple[str, ...]] = ("corpus",)
    citation: ClassVar[Citation] = Citation(
        "Residual states of {model} were taken as directions on the sphere, layer by layer "
        "({settings}); tokens as particles as in Geshkovski et al. (2025)",
        GESHKOVSKI,
    )
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {
            "cosine": (-1.0, 1.0),
            "mean_cosine": (-1.0, 1.0),
            "mean_cosine_twin": (-1.0, 1.0),
            "nearest_cosine": (-1.0, 1.0),
            "captured": (0.0, 1.0),
            "shown": (0.0, 1.0),
            "norm": (0.0, float("inf")),
        }
    )

    _settled: ClassVar[LayerMeans | None] = None  # an instance's own once it is settled

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", checked_positions(self.positions))

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """With the means that are taken off, which are those of a corpus that holds no prompt.

        Raises:
            SettingError: it holds one.
        """
        means = self._means(model)
        if means is None:
            return self
        means.forget()
        means.corpus.require_held_out(prompts, self.name, "centred=false")
        made = copy(self)
        object.__setattr__(made, "_settled", means)
        return made

    def prepare(self, model: Model) -> None:
        """Refuse a layer that is not there, and two stacks, whose decoder reads a token of its own."""
        if not isinstance(model, Store) and len(model.stacks) > 1:
            raise UnsupportedError(
                f"{self.name}: {model.name} has two stacks: expected a model of one"
            )
        if self.order_layer is not None and not 0 <= self.order_layer <= model.n_layers:
            raise SettingError(
                f"{self.name}: order_layer is {self.order_layer}: expected 0..{model.n_layers}"
            )

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse more tokens than a picture can hold."""
        count = len(resolve_positions(self.positions, prompt))
        if count > MOST_TOKENS:
            raise PromptError(
                f"{self.name}: {count} tokens of prompt {prompt.text[:40]!r}: expected at most "
                f"{MOST_TOKENS}; set positions="
            )

    def remarks(self, model: Model) -> Sequence[str]:
        """What was taken off, and why a view or a control is left out, where one is."""
        why, means = why_no_twin(model) if self.twin else None, self._means(model)
        said = [] if why is None else [f"No control by an untrained twin: {why}."]
        if means is not None:
            said.append(means.said(model))
        elif self.centred:
            said.append("No centred view: a store holds no other text; measure it on the model.")
        return said

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Views, layers 0..L and the three directions."""
        views = ["raw"] if self._means(model) is None else ["raw", "centred"]
        return {"view": views, "layer": list(range(model.n_layers + 1)), "axis": list(AXES)}

    def reads(self, model: Model) -> Read:
        """The residual stream."""
        return Read("resid_post", self.positions)

    def measure(self, captures: Captures) -> Measured:
        """The raw view, without controls."""
        return self._of({"raw": captures.stack("resid_post").double()}, captures)

    def measure_beside(self, captures: Captures, model: Model) -> Measured:
        """Both views, and the mean cosine of the twin, which is centred on its own mean."""
        means = self._means(model)
        found = self._of(_views(captures, model, means), captures)
        if not self._has_twin(model):
            return found
        twin = model.twin(self.seed)
        other = twin.capture(captures.batch, "resid_post", self.positions)
        views = _views(other, twin, means)
        cosine = torch.stack([mean_cosines(x, other.places.row) for x in views.values()])
        return {**found, **_named({"mean_cosine_twin": cosine})}

    def _of(self, views: Mapping[str, Tensor], captures: Captures) -> Measured:
        at = self.order_layer
        middle = (max(captures.layers("resid_post")) + 1) // 2
        return _named(of_prompts(views, captures.places.row, middle if at is None else at))

    def _means(self, model: Model) -> LayerMeans | None:
        """What the centred view takes off; None for no such view."""
        if not self.centred or isinstance(model, Store):
            return None
        return self._settled or LayerMeans(Corpus.read(self.corpus), "default")

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """The twin's pass."""
        return sum(map(len, prompts)) * model.n_layers if self._has_twin(model) else 0

    def _has_twin(self, model: Model) -> bool:
        return self.twin and why_no_twin(model) is None

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, layer, token): its point, its nearest other token, the layer's mean."""
        from probes.token_geometry.rows import rows

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
        """Cosines of every layer in one order; below, the sphere from two sides, moving through layers."""
        from probes.token_geometry.figures import figure

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
        """Mean cosine beside the twin's, and the cosines of one token with the others."""
        from probes.token_geometry.panels import panels

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
        """The token's nearest other token, and how much of its direction the picture shows."""
        from probes.token_geometry.panels import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Mean cosine over the prompts, beside the twin's."""
        from probes.token_geometry.report import section

        return section(rows)


def _views(captures: Captures, model: Model, means: LayerMeans | None) -> dict[str, Tensor]:
    """[layers, N, d] states in float64 by view."""
    raw = captures.stack("resid_post").double()
    if means is None:
        return {"raw": raw}
    return {"raw": raw, "centred": raw - means.of(model).double()[:, None]}


def _named(found: Mapping[str, Tensor]) -> Measured:
    at = ("view", "layer", "place")
    dims = {
        "cosine": ((*at, "other"), "cosine"),
        "point": ((*at, "axis"), "unit direction"),
        "captured": (at, "share"),
        "order": (("place",), "rank"),
        "norm": (("layer", "place"), "norm"),
        "mean_cosine": (at, "cosine"),
        "mean_cosine_twin": (at, "cosine"),
    }
    return {name: Named(dims[name][0], value, dims[name][1]) for name, value in found.items()}

"""Tokens of one prompt as points on a sphere, layer by layer, and their cosines in one order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from probes.geometry.measured import cluster_order, cosines, mean_cosine, sphere, units
from probes.twins import why_no_twin
from workbench.errors import PromptError, SettingError, UnsupportedError
from workbench.instrument import Citation, Measured, Named, Reading
from workbench.models.captures import Captures, Read
from workbench.models.positions import Positions, checked_positions, resolve_positions
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.store.activations import Store

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["TokenGeometry"]

MOST_TOKENS = 192  # pairs at every layer: more cannot be told apart in a picture, either
AXES = ("first", "second", "third")


@dataclass(frozen=True)
class TokenGeometry(Reading):
    """Directions u = x / ||x|| of a prompt's residual states at every layer, raw.

      cosine        u_i . u_j of every pair of tokens.
      order         one order of the tokens for all layers: average linkage on 1 - cosine at
                    `order_layer`, frozen, so that what moves between two layers is the tokens.
      point         coordinates in the three principal directions (about the origin) of all tokens
                    at all layers together; `captured` is the mean of ||point||^2, the share of the
                    directions that the picture holds at that layer.
      mean_cosine   over pairs of different tokens, beside the untrained twin's.
      norm          ||x||, since directions say nothing of it.

    Raw states share a direction in most models, so that cosines are high before anything is said
    of a prompt; a prompt's own mean is not taken off, which would make any n states cancel.

    Sources: Geshkovski et al. 2025, arXiv 2312.10794 (tokens as particles on a sphere); Bar-Joseph
    et al. 2001 (the order).

    Attributes:
        order_layer: 0..L, where the order is made; None for L // 2.
        positions: the tokens: "all", "last", indices, a slice, or a role; at most 192 a prompt.
        twin: whether to read the untrained twin, which costs a second pass; left out of stores and
            of models above 1 B parameters.
        seed: of the twin.

    Result axes: layer (0..L), place, other (the tokens of the place's prompt, as read), axis
    (three). Variables: cosine (layer, place, other), point (layer, place, axis), order (place),
    norm (layer, place), captured, mean_cosine, mean_cosine_twin (layer, place; of the prompt).

    Raises:
        PromptError: a prompt with more tokens than a picture can hold.
        SettingError: no such layer.

    >>> TokenGeometry()(model, "The Eiffel Tower is in").plot()  # doctest: +SKIP
    """

    order_layer: int | None = None
    positions: Positions = "all"
    twin: bool = True
    seed: int = 0

    name: ClassVar[str] = "token_geometry"
    title: ClassVar[str] = "Token geometry"
    costly: ClassVar[bool] = True
    long_targets: ClassVar[bool] = True
    citation: ClassVar[Citation] = Citation(
        "Residual states of {model} were taken as directions on the sphere, layer by layer "
        "({settings}); tokens as particles as in Geshkovski et al. (2025)",
        "@article{geshkovski2025mathematical,\n"
        "  title   = {A mathematical perspective on Transformers},\n"
        "  author  = {Geshkovski, Borjan and Letrouit, Cyril and Polyanskiy, Yury and Rigollet, "
        "Philippe},\n"
        "  journal = {Bulletin of the American Mathematical Society},\n"
        "  year    = {2025},\n"
        "  note    = {arXiv:2312.10794}\n"
        "}",
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", checked_positions(self.positions))

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
        """Why the twin is left out, where it is."""
        why = why_no_twin(model) if self.twin else None
        return [] if why is None else [f"No control by an untrained twin: {why}."]

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Layers 0..L and the three directions."""
        return {"layer": list(range(model.n_layers + 1)), "axis": list(AXES)}

    def reads(self, model: Model) -> Read:
        """The residual stream."""
        return Read("resid_post", self.positions)

    def measure(self, captures: Captures) -> Measured:
        """Each prompt by itself, without controls."""
        states, row = captures.stack("resid_post"), captures.places.row
        layers, count = states.shape[:2]
        at = layers // 2 if self.order_layer is None else self.order_layer
        widest = int(torch.bincount(row).max())
        found = {
            "cosine": states.new_full((layers, count, widest), torch.nan, dtype=torch.float64),
            "point": states.new_zeros(layers, count, len(AXES), dtype=torch.float64),
            "order": torch.zeros_like(row),
            "norm": states.double().norm(dim=-1),
        }
        found["captured"] = torch.zeros_like(found["norm"])
        for prompt in range(len(captures.batch)):
            here = row == prompt
            _of_prompt(found, units(states[:, here]), here, at)
        return _named(found | {"mean_cosine": _means(states, row)})

    def measure_beside(self, captures: Captures, model: Model) -> Measured:
        """The same, and the mean cosine of the twin."""
        found = self.measure(captures)
        if not self._has_twin(model):
            return found
        twin = model.twin(self.seed).capture(captures.batch, "resid_post", self.positions)
        means = _means(twin.stack("resid_post"), twin.places.row)
        return {**found, **_named({"mean_cosine_twin": means})}

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """The twin's pass."""
        return sum(map(len, prompts)) * model.n_layers if self._has_twin(model) else 0

    def _has_twin(self, model: Model) -> bool:
        return self.twin and why_no_twin(model) is None

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, layer, token): its point, its nearest other token, the layer's mean."""
        from probes.geometry.rows import rows

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
        from probes.geometry.figures import figure

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
        from probes.geometry.panels import panels

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
        from probes.geometry.panels import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Mean cosine over the prompts, beside the twin's."""
        from probes.geometry.report import section

        return section(rows)


def _of_prompt(found: dict[str, Tensor], u: Tensor, here: Tensor, at: int) -> None:
    """Write what the directions [layers, n, d] of one prompt say; `at` is the order's layer."""
    points = sphere(u)
    which = torch.nonzero(here)[:, 0]
    found["cosine"][:, which, : u.shape[1]] = cosines(u)
    found["point"][:, here] = points.points
    found["order"][here] = cluster_order(u[at]).to(here.device)
    found["captured"][:, here] = points.captured[:, None]


def _means(states: Tensor, row: Tensor) -> Tensor:
    """[layers, N] mean cosine of each prompt's states [layers, N, d]."""
    found = states.new_zeros(states.shape[:2], dtype=torch.float64)
    for prompt in range(int(row.max()) + 1):
        here = row == prompt
        found[:, here] = mean_cosine(units(states[:, here]))[:, None]
    return found


def _named(found: Mapping[str, Tensor]) -> Measured:
    dims = {
        "cosine": (("layer", "place", "other"), "cosine"),
        "point": (("layer", "place", "axis"), "unit direction"),
        "order": (("place",), "rank"),
        "norm": (("layer", "place"), "norm"),
        "captured": (("layer", "place"), "share"),
        "mean_cosine": (("layer", "place"), "cosine"),
        "mean_cosine_twin": (("layer", "place"), "cosine"),
    }
    return {name: Named(dims[name][0], value, dims[name][1]) for name, value in found.items()}

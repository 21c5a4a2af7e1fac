"""Attention: where each head looks, scored over the prompt, with what looking anywhere would score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from lenses.attention.blocks import by_block
from lenses.attention.keys import Keys
from lenses.attention.scores import scores, uniform
from workbench.errors import SettingError, UnsupportedError
from workbench.instrument import Citation, Driving, Measured, Named
from workbench.models.batch import Batch, Places
from workbench.models.positions import Positions, checked_positions
from workbench.models.protocol import Model

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["Attention"]

MOST_KEPT = 2**28  # bytes of patterns of one prompt
SITES = {"self": "pattern", "encoder": "pattern", "cross": "cross_pattern"}
UNITS = MappingProxyType(
    {
        "sink": "attention weight",
        "top_sink": "attention weight",
        "previous": "attention weight",
        "induction": "attention weight",
        "duplicate": "attention weight",
        "entropy": "nat",
        "distance": "token",
    }
)


@dataclass(frozen=True)
class Attention(Driving):
    """Attention patterns and scores of every head: sinks, previous token, induction, duplicates.

    With a_qk the weight that a head gives from query q to key k, at each q:
      sink        a_q0, on the first token.
      top_sink    max_k of mean_q a_qk, the share of all its attention that one key draws, over the
                  queries read; top_sink_position is that key.
      previous    a_q,q-1.
      induction   sum of a_qk over k < q whose preceding token k-1 is the same as token q.
      duplicate   sum of a_qk over k < q with the same token as q.
      entropy     -sum_k p_k ln p_k in nat, p = a_q / sum_k a_qk; entropy_share = entropy / ln(n).
      distance    sum_k p_k |q - k| in tokens.
    n is the number of keys that the mask lets q see (with a sliding window fewer than q + 1; in an
    encoder the whole prompt). A score is NaN, never 0, where there is no visible key of its kind,
    and where n = 1, since a query without a choice says nothing. Beside each stands what attention
    of 1/n on every visible key would score: `<score>_chance`.

    Blocks run one after the other, each once, and one layer's patterns are held at a time.

    Sources: Elhage et al. 2021, "A mathematical framework for transformer circuits" (previous
    token, duplicate token); Olsson et al. 2022, arXiv 2209.11895 (induction); Xiao et al. 2023,
    arXiv 2309.17453 (sinks). Olsson et al. score on random repeated tokens: on other prompts a
    repeated token is not the same as one that has to be continued.

    Attributes:
        kind: "self", of the decoder or of an encoder-only model; "encoder" and "cross" of a
            model of two stacks.
        positions: the queries: "all", "last", indices, a slice, or a role.
        patterns: whether to keep the weights themselves, for `layers` and `heads`.
        layers: "all", or layers 1..L whose patterns are kept; scores are of all.
        heads: "all", or heads 0..H-1 whose patterns are kept.

    Result axes: layer (1..L), head (0..H-1), place (the queries), key. Variables: the scores above
    and entropy_share, top_sink_position (layer, head, place); their chances and visible_keys
    (layer, place); with `patterns`, pattern (pattern_layer, pattern_head, place, key), NaN beyond a
    prompt's end, and key_id (place, key).

    Raises:
        UnsupportedError: a family that computes attention in code of its own, or lacks the kind.
        SettingError: patterns of one prompt beyond 256 MiB, or an unknown layer or head.

    >>> Attention(patterns=True)(model, "one two one two").plot(score="induction")  # doctest: +SKIP
    """

    kind: Literal["self", "encoder", "cross"] = "self"
    positions: Positions = "all"
    patterns: bool = False
    layers: str | int | Sequence[int] = "all"
    heads: str | int | Sequence[int] = "all"

    name: ClassVar[str] = "attention"
    title: ClassVar[str] = "Attention"
    costly: ClassVar[bool] = True
    long_targets: ClassVar[bool] = True
    citation: ClassVar[Citation] = Citation(
        "Attention of {model} was scored per head against uniform attention over the visible keys "
        "({settings}); induction heads as in Olsson et al. (2022)",
        "@article{olsson2022induction,\n"
        "  title   = {In-context Learning and Induction Heads},\n"
        "  author  = {Olsson, Catherine and Elhage, Nelson and Nanda, Neel and others},\n"
        "  journal = {arXiv preprint arXiv:2209.11895},\n"
        "  year    = {2022}\n"
        "}",
    )
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        dict.fromkeys((*UNITS, "entropy_share"), (0.0, 1.0))
        | dict.fromkeys(("entropy", "distance"), (0.0, float("inf")))
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", checked_positions(self.positions))
        if self.kind not in SITES:
            raise SettingError(
                f"attention: kind is {self.kind!r}: expected one of {', '.join(SITES)}"
            )
        for name in ("layers", "heads"):
            object.__setattr__(self, name, _picked(name, getattr(self, name)))

    def prepare(self, model: Model) -> None:
        """Refuse a layer, a head or a kind of attention that the model has not."""
        stack = self._stack(model)
        _require("layers", self.layers, range(1, stack.n_layers + 1))
        _require("heads", self.heads, range(stack.n_heads))

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Layers 1..L, heads 0..H-1, and those whose patterns are kept."""
        stack = self._stack(model)
        return {
            "layer": list(range(1, stack.n_layers + 1)),
            "head": list(range(stack.n_heads)),
            "pattern_layer": self._kept_layers(stack),
            "pattern_head": self._kept_heads(stack),
        }

    def drive(self, model: Model, batch: Batch) -> tuple[Places, Measured]:
        """Scores, block by block, and the patterns that are to be kept."""
        stack, batch = self._stack(model), batch.padded_right()
        heads, layers = self._kept_heads(stack), self._kept_layers(stack)
        site, columns, kept = SITES[self.kind], [], []
        for layer, captures in by_block(stack, batch, [site], self.positions):
            pattern, where = captures[site, layer], captures.places
            keys = Keys.of(captures.batch, where, causal=stack.causal, cross=self.kind == "cross")
            if layer == 1:
                self._require_room(keys, len(heads) * len(layers), pattern)
            columns.append(_of_layer(pattern, keys.within(stack.window(layer))))
            if self.patterns and layer in layers:
                kept.append(_there(pattern[:, heads], keys))
        found = {name: _stacked([column[name] for column in columns]) for name in columns[0]}
        if kept:
            dims = ("pattern_layer", "pattern_head", "place", "key")
            stacked = torch.stack(kept).transpose(1, 2)
            found["pattern"] = Named(dims, stacked, "attention weight")
            found["key_id"] = Named(("place", "key"), keys.ids, "token id")
        return where, found

    def _stack(self, model: Model) -> Model:
        """The model, or its encoder where that is asked for.

        Raises:
            UnsupportedError: it has none.
        """
        stacks = model.stacks
        if self.kind == "self" or (self.kind == "cross" and len(stacks) > 1):
            return model
        if len(stacks) < 2:
            raise UnsupportedError(
                f"attention: {model.name} is one stack, so it has no {self.kind} attention: use "
                "kind=self"
            )
        return stacks["encoder."]

    def _kept_layers(self, stack: Model) -> list[int]:
        return list(range(1, stack.n_layers + 1)) if self.layers == "all" else list(self.layers)  # type: ignore[arg-type]

    def _kept_heads(self, stack: Model) -> list[int]:
        return list(range(stack.n_heads)) if self.heads == "all" else list(self.heads)  # type: ignore[arg-type]

    def _require_room(self, keys: Keys, count: int, pattern: Tensor) -> None:
        """Refuse patterns of one prompt that are too large to keep; batches do not matter.

        Raises:
            SettingError: says how large they are, and what to set.
        """
        if not self.patterns:
            return
        queries = torch.bincount(keys.row, minlength=len(keys.tokens))
        lengths = (keys.tokens >= 0).sum(-1)
        size = int((queries * lengths).max()) * count * max(4, pattern.itemsize)
        if size > MOST_KEPT:
            raise SettingError(
                f"attention: the patterns of {count} heads over a prompt of {int(lengths.max())} tokens "
                f"take {size / 2**20:,.0f} MiB, at most {MOST_KEPT / 2**20:.0f} are kept: set layers=, "
                "heads= or positions=, or patterns=false (scores need none)"
            )

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, layer, head): mean scores, their chance, how many places each is over."""
        from lenses.attention.rows import rows

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
        """Layer by head coloured by a score, and one head's pattern where it was kept.

        Args:
            options: `score`, one of the scores; `head`, whose pattern is drawn.
        """
        from lenses.attention.figures import figure

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
        """Scores by head, and the entropy of the heads beside that of uniform attention."""
        from lenses.attention.panels import panels

        return panels(data, prompt=prompt)

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
        """The head with the most of each score at one position, beside chance."""
        from lenses.attention.panels import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """The heads that score highest over the prompts, beside chance."""
        from lenses.attention.report import section

        return section(rows)


def _of_layer(pattern: Tensor, keys: Keys) -> dict[str, Named]:
    """Scores (head, place) and chances (place) of one layer."""
    own = scores(pattern, keys)
    chance = uniform(keys, own["entropy"].dtype)
    share = own["entropy"] / chance["entropy"]
    found = {name: Named(("head", "place"), own[name], unit) for name, unit in UNITS.items()}
    found["entropy_share"] = Named(("head", "place"), share, "share")
    found["top_sink_position"] = Named(("head", "place"), own["top_sink_position"], "position")
    for name, unit in UNITS.items():
        found[f"{name}_chance"] = Named(("place",), chance[name], unit)
    return found | {"visible_keys": Named(("place",), chance["visible_keys"], "token")}


def _stacked(layers: Sequence[Named]) -> Named:
    first = layers[0]
    return Named(("layer", *first.dims), torch.stack([it.values for it in layers]), first.unit)


def _there(pattern: Tensor, keys: Keys) -> Tensor:
    """[N, heads, keys] float32 at least, NaN beyond each prompt's end."""
    dtype = torch.promote_types(pattern.dtype, torch.float32)
    return torch.where((keys.ids >= 0)[:, None], pattern.to(dtype), torch.nan)


def _picked(name: str, value: Any) -> str | tuple[int, ...]:
    """Ascending numbers, or "all"."""
    if value == "all":
        return "all"
    items = [value] if isinstance(value, int) else value
    if isinstance(items, str) or not items or any(type(item) is not int for item in items):
        raise SettingError(f"attention: {name} is {value!r}: expected all, or whole numbers")
    return tuple(sorted(set(items)))


def _require(name: str, picked: Any, known: range) -> None:
    strange = [] if picked == "all" else [item for item in picked if item not in known]
    if strange:
        raise SettingError(f"attention: {name} {strange}: expected some of {known[0]}..{known[-1]}")

"""What patching of sites and of paths share: settings, batches of alike prompts, what is shown."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from probes.causal.contrast import Contrast
from probes.causal.corruption import first_difference
from probes.causal.effects import Direction, Effects, algorithm_of
from probes.causal.metrics import UNITS, Metric, require_goal, settled_metric
from probes.causal.pace import within
from probes.patching.alignment import Align, Pair, paired
from probes.patching.grid import BY_HEAD, SITES, WHOLE, Grid, Scores
from probes.patching.measured import named, of_prompt
from probes.settings import one_of, sites_of
from probes.tracing.measured import Scored
from workbench.errors import PromptError, SettingError
from workbench.instrument import Measured, Paced
from workbench.models.batch import Batch, Places
from workbench.models.positions import (
    Positions,
    checked_positions,
    require_positions,
    resolve_positions,
)
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["Found", "Patching"]

TOKENS = 512  # of prompts that are patched together
DIRECTIONS = ("denoising", "noising")


@dataclass(frozen=True)
class Found:
    """What was measured of prompts that are patched together.

    Attributes:
        effects: their runs.
        scores: the grid.
        tokens: how many tokens each slot puts in.
    """

    effects: Effects
    scores: Scores
    tokens: Sequence[int]


@dataclass(frozen=True)
class Patching(Paced):
    """Put values of a prompt's counterfactual into its run, or the reverse, and score what comes out.

    Attributes:
        sites: what is put in.
        layers: 0..L, or "all" for 1..L.
        positions: tokens whose values are put in.
        direction: "denoising" or "noising".
        metric: what runs are scored by.
    """

    sites: str | Sequence[str] = ("z",)
    layers: str | int | Sequence[int] = "all"
    positions: Positions = "all"
    direction: Direction = "denoising"
    metric: Literal["auto", "probability", "logprob", "logit_difference", "kl"] = "auto"

    long_targets: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    most_prompts: ClassVar[int | None] = 8
    allowed: ClassVar[tuple[str, ...]] = SITES

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", sites_of(self.name, self.sites, self.allowed))
        object.__setattr__(self, "positions", checked_positions(self.positions))
        if isinstance(self.layers, int):
            object.__setattr__(self, "layers", (self.layers,))
        elif self.layers != "all":
            object.__setattr__(self, "layers", tuple(self.layers))
        one_of(self.name, "direction", self.direction, DIRECTIONS)
        one_of(self.name, "metric", self.metric, ("auto", *UNITS))

    @property
    def _align(self) -> Align:
        return "position"

    @property
    @abstractmethod
    def _together(self) -> bool:
        """Whether the tokens of a prompt are patched together, and not one by one."""

    @abstractmethod
    def _found(
        self,
        model: Model,
        pairs: Sequence[Pair],
        contrast: Contrast,
        where: Sequence[int],
        pace: Callable[[float], None],
    ) -> Found:
        """Measure prompts of one length at positions `where`, which all of them have."""

    @abstractmethod
    def _planned(self, model: Model, pairs: Sequence[Pair], where: Sequence[int]) -> int:
        """How many tokens `_found` passes through a block."""

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """Fill in the metric: the logit difference where every prompt has a foil, else the logprob."""
        if self.metric != "auto":
            return self
        return replace(self, metric=settled_metric("auto", list(prompts), "logprob"))  # type: ignore[arg-type]

    def prepare(self, model: Model) -> None:
        """Refuse models that are no causal decoders, and layers or sites that they lack.

        Raises:
            UnsupportedError, SettingError: it is, or does.
        """
        algorithm_of(model, [])
        layers = self._layers(model)
        if bad := [one for one in layers if type(one) is not int or not 0 <= one <= model.n_layers]:
            raise SettingError(
                f"{self.name}: layer {bad[0]!r}: expected whole numbers, 0..{model.n_layers}, or all"
            )
        if not layers or len(set(layers)) < len(layers):
            raise SettingError(f"{self.name}: layers is {layers}: expected at least one, each once")
        if layers == [0] and "resid_post" not in self.sites:
            raise SettingError(
                f"{self.name}: layer 0, the embedding, has no {' or '.join(self.sites)}: expected one of "
                f"1..{model.n_layers} among the layers, or resid_post among the sites"
            )

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt without a counterfactual, or that cannot be scored as is asked."""
        if prompt.prompt.corrupted is None:
            raise PromptError(
                f"{self.name}: prompt {prompt.text[:40]!r} has no corrupted text: give one"
            )
        require_goal(prompt, self.metric, self.name)
        require_positions(self.positions, prompt, self.name)

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Sites as a whole and by head, layers, and heads counted from 0."""
        return {
            "site": [site for site in self.sites if site in WHOLE],
            "head_site": [site for site in self.sites if site in BY_HEAD],
            "layer": self._layers(model),
            "head": list(range(model.n_heads)),
        }

    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """Patch prompts that are alike together."""
        pairs = [paired(model, prompt, self._align, self.name) for prompt in batch.prompts]
        groups = list(self._groups(pairs))
        parts: dict[int, dict[str, Tensor]] = {}
        for number, indices in enumerate(groups):
            own = within(pace, number / len(groups), 1 / len(groups))
            found = self._of_pairs(model, [pairs[i] for i in indices], own)
            parts |= dict(zip(indices, found, strict=True))
        places = batch.places(self.positions)
        return (
            _lasts(places) if self._together else places,
            named([parts[i] for i in range(len(batch))], self.metric),
        )

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """How many tokens will pass through a block."""
        pairs = [paired(model, prompt, self._align, self.name) for prompt in prompts]
        groups = [[pairs[i] for i in indices] for indices in self._groups(pairs)]
        return sum(
            self._planned(model, those, resolve_positions(self.positions, those[0].prompt))
            for those in groups
        )

    def _sizes(self, model: Model, pairs: Sequence[Pair]) -> dict[str, int]:
        """The sizes of the runs, as `planned` takes them."""
        answer = max(0, len(pairs[0].prompt.answer) - 1)
        widths = [len(pairs[0].prompt) + answer, len(pairs[0].other) + answer]
        base, other = widths[::-1] if self.direction == "denoising" else widths
        return {
            "n_layers": model.n_layers,
            "width": base,
            "other": other,
            "same": min(first_difference(pair.prompt, pair.other) for pair in pairs),
            "prompts": len(pairs),
            "tail": answer + 1,
        }

    def _groups(self, pairs: Sequence[Pair]) -> Iterator[list[int]]:
        groups: dict[Hashable, list[int]] = {}
        for index, pair in enumerate(pairs):
            groups.setdefault(self._key(pair), []).append(index)
        for those in groups.values():
            size = max(1, TOKENS // len(pairs[those[0]].prompt))
            for start in range(0, len(those), size):
                yield those[start : start + size]

    def _key(self, pair: Pair) -> Hashable:
        """Equal for prompts that can be patched together."""
        where = tuple(resolve_positions(self.positions, pair.prompt))
        matched = tuple(pair.counterpart.items())
        return len(pair.prompt), len(pair.other), len(pair.prompt.answer), where, matched

    def _of_pairs(
        self, model: Model, pairs: Sequence[Pair], pace: Callable[[float], None]
    ) -> list[dict[str, Tensor]]:
        """The variables of each prompt, with the axis place first."""
        where = resolve_positions(self.positions, pairs[0].prompt)
        contrast = Contrast.between(
            model, [pair.prompt for pair in pairs], [pair.other for pair in pairs]
        )
        found = self._found(model, pairs, contrast, where, pace)
        return [
            of_prompt(
                pair.prompt,
                where[-1:] if self._together else where,
                found.tokens,
                found.scores.whole[..., i],
                found.scores.by_head[..., i],
                Scored.of(found.effects, i, self.metric, self.direction),
            )
            for i, pair in enumerate(pairs)
        ]

    def _grid(self, model: Model, pairs: Sequence[Pair]) -> Grid:
        whole, by_head = (
            tuple(site for site in self.sites if site in kind) for kind in (WHOLE, BY_HEAD)
        )
        count = model.n_heads
        if self._needs_key_heads:
            first = model.batch([pairs[0].prompt])
            count = model.capture(first, [("k", 1)], "last")["k", 1].shape[1]
        return Grid(whole, by_head, tuple(self._layers(model)), model.n_heads, count)

    @property
    def _needs_key_heads(self) -> bool:
        """Whether heads of keys or values are named, which may be fewer."""
        return bool({"k", "v"} & set(self.sites))

    @property
    def _metric(self) -> Metric:
        assert self.metric != "auto"
        return self.metric

    def _layers(self, model: Model) -> list[int]:
        return list(range(1, model.n_layers + 1)) if self.layers == "all" else list(self.layers)  # type: ignore[arg-type]

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a cell; the keys are those of every causal instrument, with a head."""
        from probes.patching.rows import rows

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
        """Heat maps, layer by head and layer by token; of several prompts their means."""
        from probes.patching.figures import figure

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
        """Effects of one place: each site as a line, each head in a heat map."""
        from probes.patching.panels import panels

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
        """The runs' scores, the layer's effects and its largest heads."""
        from probes.patching.facts import facts

        return facts(data, layer=layer, prompt=prompt, position=position)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """The total effect, effects along the layers, and the heads that stand out."""
        from probes.patching.report import section

        return section(rows)


def _lasts(places: Places) -> Places:
    """The last place of each row."""
    ends = torch.ones_like(places.row, dtype=torch.bool)
    ends[:-1] = places.row[1:] != places.row[:-1]
    return Places(places.row[ends], places.position[ends], places.token[ends], places.column[ends])

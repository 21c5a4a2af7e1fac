"""A probe's units ablated: the loss in class and out of it, beside random units of the same layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from probes.bibliography import GURNEE
from probes.settings import one_of
from probes.sparse.labels import Level
from probes.steering.base import GoingOn
from probes.steering.going_on import (
    CLASSES,
    below,
    of_layers,
    require_classes,
)
from probes.steering.losses import Losses
from probes.steering.means import site_means
from probes.steering.units import controls, without
from workbench.errors import SettingError
from workbench.instrument import Citation, Measured, Named
from workbench.models.batch import Batch, Places
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["ProbeAblation"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "how": ("zero", "mean"),
    "classes": ("prompt", "token"),
    "loss": ("tokens", "answer"),
}


@dataclass(frozen=True)
class ProbeAblation(GoingOn):
    """Take a sparse probe's units out of a layer: does the loss rise where the feature is, and only there?

    At each layer the k units of a feature's probe are replaced at every position, by 0 or by their mean,
    and the loss of a class is

        -1 / N sum_t log p(x_t+1 | x_1 .. x_t)    in nat per token, over the N tokens t of the class,

    beside the model as it is. A token t is of the class of its prompt, or has a label of its own; with
    loss=answer the tokens are those that predict the prompt's target.

    Control: `draws` sets of as many units of the same layer, drawn at random from all others. A probe's
    units matter to a feature where the loss in class rises more than with the control, and more than
    out of class; that it does not rise is no proof that they do nothing, since others may make up for it.

    Source: Gurnee, Nanda, Pauly, Harvey, Troitskii and Bertsimas 2023, "Finding Neurons in a Haystack:
    Case Studies with Sparse Probing", arXiv 2305.01610.

    Attributes:
        probe: a file in which sparse_probe saved its result (.nc).
        feature: one of the result's features; may be left out where it has one.
        k: units of the probe; 0 for the most there are.
        layers: of those that were probed, one at a time; all where empty.
        how: "zero", or "mean", over all tokens of the prompts that are measured.
        classes: "prompt", the label of a whole prompt; "token", that of each token (labelled spans, or
            rules such as token:digit).
        loss: "tokens", of every next token of the prompt; "answer", of its target.
        draws: sets of random units.
        seed: of the draws.

    Result axes: place (the last of each prompt), layer, class (in, out), draw. Variables: loss (place,
    layer, class), random_loss (place, layer, class, draw), clean_loss and tokens (place, class). NaN
    where a prompt has no token of the class.

    >>> ProbeAblation(probe="probe.nc", feature="plural", k=1)(model, prompts).plot()  # doctest: +SKIP
    """

    k: int = 0
    layers: int | Sequence[int] = ()
    how: Literal["zero", "mean"] = "zero"
    classes: Literal["prompt", "token"] = "prompt"
    loss: Literal["tokens", "answer"] = "tokens"
    draws: int = 8
    seed: int = 0

    name: ClassVar[str] = "probe_ablation"
    title: ClassVar[str] = "Ablation of a probe's units"
    most_prompts: ClassVar[int | None] = 16
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        dict.fromkeys(("loss", "random_loss", "clean_loss"), (0.0, float("inf")))
    )
    citation: ClassVar[Citation] = Citation(
        "Units that sparse probes chose in {model} were ablated (Gurnee et al., 2023; {settings}) beside as "
        "many random units of the same layer",
        GURNEE,
    )
    _prompts: ClassVar[tuple[Prompt, ...] | None] = None  # an instance's own once it is settled
    _means: ClassVar[tuple[Model, Mapping[int, Tensor]] | None] = None

    def __post_init__(self) -> None:
        self._gather("layers")
        for field, known in CHOICES.items():
            one_of(self.name, field, getattr(self, field), known)
        self._require_whole("k")
        self._require_whole("draws")
        if self.loss == "answer" and self.classes == "token":
            raise SettingError(
                f"{self.name}: loss=answer is of whole prompts: expected classes=prompt"
            )

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """With the probe and, for means, all prompts."""
        if self._prompts is not None:
            return self
        made = self._with_probe()
        every = tuple(prompts)
        encoded = [model.encode(one, long_targets=True) for one in every]
        level: Level = "all" if self.classes == "token" else "last"
        require_classes(model, encoded, made.feature, level)
        object.__setattr__(made, "_prompts", every)
        return made

    @property
    def _layers(self) -> list[int]:
        assert isinstance(self.layers, tuple)
        return of_layers(self._found, self.layers)

    def _units(self, layer: int) -> list[int]:
        return self._found.units(self.feature, layer, self.k or None)

    def prepare(self, model: Model) -> None:
        """Refuse models that predict no next tokens, and a k that was not probed."""
        super().prepare(model)
        for layer in self._layers:
            self._units(layer)

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt without what the loss is of."""
        Losses.require(prompt, self.loss)

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Layers with their units, classes, and draws."""
        units = [" ".join(map(str, self._units(layer))) for layer in self._layers]
        return {
            "layer": self._layers,
            "class": list(CLASSES),
            "draw": list(range(self.draws)),
            "units": ("layer", units),
        }

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """A pass as it is, the blocks below, and in each ablated pass those from the ablated layer on.

        The pass over all prompts that takes their means is not counted.
        """
        layers, tokens = self._layers, sum(map(len, prompts))
        if self.loss == "answer":
            tokens += sum(max(0, len(prompt.answer) - 1) for prompt in prompts)
        above = sum(model.n_layers - layer + 1 for layer in layers)
        return tokens * (model.n_layers + max(layers) - 1 + (1 + self.draws) * above)

    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """Layer by layer, from the states below."""
        losses = Losses.of(
            model, batch, self.feature, by_token=self.classes == "token", what=self.loss
        )
        states, found = below(model, losses.batch, self._layers), []
        for number, layer in enumerate(self._layers):
            found.append(torch.stack(self._of_layer(model, losses, states.start(layer), layer)))
            pace((number + 1) / len(self._layers))
        after = torch.stack(found, 1)  # [set of units, layer, prompt, class]
        axes = ("place", "layer", "class")
        return batch.places("last"), {
            "loss": Named(axes, after[0].transpose(0, 1), "nat"),
            "random_loss": Named((*axes, "draw"), after[1:].permute(2, 1, 3, 0), "nat"),
            "clean_loss": Named(("place", "class"), losses.run(model), "nat"),
            "tokens": Named(("place", "class"), losses.tokens, "tokens"),
        }

    def _of_layer(
        self, model: Model, losses: Losses, start: tuple[int, Tensor], layer: int
    ) -> list[Tensor]:
        """[rows, 2] losses without the probe's units, and without each control's."""
        site, units = self._found.site, self._units(layer)
        width = self._found.width
        sets = [units, *controls(units, width, self.draws, (self.seed, layer))]
        means = None if self.how == "zero" else self._means_of(model)[layer]
        return [losses.run(model, [without((site, layer), one, means)], start) for one in sets]

    def _means_of(self, model: Model) -> Mapping[int, Tensor]:
        """The means, from one pass at the first batch."""
        if self._means is None or self._means[0] is not model:
            assert self._prompts is not None
            found = site_means(model, self._prompts, [(self._found.site, x) for x in self._layers])
            object.__setattr__(self, "_means", (model, found))
        assert self._means is not None
        return self._means[1]

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, layer, class)."""
        from probes.steering.ablation_rows import rows

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
        """The panels, which speak of all prompts, under whose units were taken out."""
        from probes.steering.figures import ablated, drawn

        layer = None if selected is None else selected[0]
        return drawn(data, cls.panels(data), list(ablated(data)), theme, layer, **options)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """Changes of the loss in class and out of it, beside the control's."""
        from probes.steering.ablation_panels import panels

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
        """Of a layer, the units and what their loss did to each class."""
        from probes.steering.ablation_panels import facts

        return facts(data, layer)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Changes of the loss along the layers, with intervals over prompts."""
        from probes.steering.ablation_report import section

        return section(rows)

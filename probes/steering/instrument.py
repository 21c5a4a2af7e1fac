"""Steering: what becomes of the answers when a probe's direction is added."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from probes.settings import one_of
from probes.sparse.found import KINDS, Direction, Kind
from probes.steering.answers import Answers
from probes.steering.base import GoingOn
from probes.steering.going_on import below, labels_by_prompt, of_layers
from workbench.errors import SettingError
from workbench.instrument import Citation, Measured, Named
from workbench.models.batch import Batch, Places
from workbench.models.edits import Edit
from workbench.models.positions import Positions, checked_positions
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt
from workbench.prompts import Prompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["Steering"]

RANGE = (0.0, 1.0)


@dataclass(frozen=True)
class Steering(GoingOn):
    """Add a probe's direction to its site and see which class of answers the model gives.

    At each layer l and strength s, a + s v_l in the place of the activation a; v_l is the difference of
    the class means of a feature, or its sparse probe's direction (see `probes.sparse.found.Direction`).
    Answers in class are the first tokens of the targets of prompts that have the feature, answers out of
    class those of prompts that lack it; what is in both counts as neither, and so does an answer that no
    measured prompt has: measure enough of them. Measured behind each prompt:

        p_in, p_out = the probability of all answers of a class together,
        top_in = whether the likeliest token of all is an answer in class.

    A feature is steered towards where prompts that lack it get answers in class.

    Control: `draws` directions with the same entries, at units and with signs drawn at random: of the same
    norm and as sparse.

    Source: Turner, Thiergart, Leech, Udell, Vazquez, Mini and MacDiarmid 2023, "Steering Language Models With
    Activation Engineering", arXiv 2308.10248; class means: Marks and Tegmark 2023, "The Geometry of Truth",
    arXiv 2310.06824.

    Attributes:
        probe: a file in which sparse_probe saved its result (.nc).
        feature: one of the result's features; may be left out where it has one.
        direction: "difference", strengths in distances between the class means; or "probe", strengths in
            logits of the sparse probe.
        k: units of the sparse probe; 0 for the most there are.
        strength: one or several; those below 0 steer away.
        layers: of those that were probed; all where empty.
        positions: where it is added: "all", "last", indices, a slice, or a role.
        draws: directions of the control.
        seed: of the control.

    Result axes: place (the last of each prompt), layer, strength, draw. Variables: p_in, p_out, top_in
    (place, layer, strength), random_p_in, random_p_out, random_top_in (place, layer, strength, draw),
    clean_p_in, clean_p_out, clean_top_in, and label (1 in class, 0 out of it, -1 neither) (place).

    >>> Steering(probe="probe.nc", feature="plural")(model, prompts).plot()  # doctest: +SKIP
    """

    direction: Kind = "difference"
    k: int = 0
    strength: float | Sequence[float] = (1.0, 2.0)
    layers: int | Sequence[int] = ()
    positions: Positions = "all"
    draws: int = 4
    seed: int = 0

    name: ClassVar[str] = "steer"
    title: ClassVar[str] = "Steering"
    most_prompts: ClassVar[int | None] = 32
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        dict.fromkeys(
            [f"{kind}{name}" for kind in ("", "random_", "clean_") for name in Answers.units], RANGE
        )
    )
    citation: ClassVar[Citation] = Citation(
        "{model} was steered along a probe's direction (Turner et al., 2023; {settings}) beside random "
        "directions of the same norm",
        "@article{turner2023steering,\n"
        "  title   = {Steering Language Models With Activation Engineering},\n"
        "  author  = {Turner, Alexander Matt and Thiergart, Lisa and Leech, Gavin and Udell, David and\n"
        "             Vazquez, Juan J. and Mini, Ulisse and MacDiarmid, Monte},\n"
        "  journal = {arXiv preprint arXiv:2308.10248},\n"
        "  year    = {2023}\n"
        "}",
    )
    _answers: ClassVar[Answers | None] = None  # an instance's own once it is settled

    def __post_init__(self) -> None:
        self._gather("strength")
        self._gather("layers")
        object.__setattr__(self, "positions", checked_positions(self.positions))
        one_of(self.name, "direction", self.direction, KINDS)
        self._require_whole("k")
        self._require_whole("draws")
        if not self._strengths:
            raise SettingError(f"{self.name}: no strength: expected at least one")

    @property
    def _strengths(self) -> list[float]:
        assert isinstance(self.strength, tuple)
        return [float(one) for one in self.strength]

    def settled(self, model: Model, prompts: Iterable[Prompt]) -> Self:
        """With the probe, and the answers of both classes of the whole set."""
        if self._answers is not None:
            return self
        made = self._with_probe()
        encoded = [model.encode(prompt, long_targets=True) for prompt in prompts]
        labels = labels_by_prompt(model, encoded, made.feature)
        object.__setattr__(made, "_answers", Answers.of(encoded, labels, made.feature))
        return made

    @property
    def _layers(self) -> list[int]:
        assert isinstance(self.layers, tuple)
        return of_layers(self._found, self.layers)

    def prepare(self, model: Model) -> None:
        """Refuse models that predict no next tokens, and directions that are none."""
        super().prepare(model)
        for layer in self._layers:
            self._direction(layer)

    def _direction(self, layer: int) -> Direction:
        return self._found.direction(self.feature, layer, self.direction, self.k or None)

    def remarks(self, model: Model) -> Sequence[str]:
        """Whose probe it is, and what counts as an answer of either class."""
        assert self._answers is not None
        return [*super().remarks(model), self._answers.said]

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """Layers with the norms of their directions, strengths, and draws."""
        norms = [float(self._direction(layer).vector.norm()) for layer in self._layers]
        return {
            "layer": self._layers,
            "strength": self._strengths,
            "draw": list(range(self.draws)),
            "norm": ("layer", norms),
        }

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """A pass as it is, the blocks below, and in each steered pass those from the steered layer on."""
        layers = self._layers
        above = sum(model.n_layers - layer + 1 for layer in layers)
        steered = len(self._strengths) * (1 + self.draws) * above
        return sum(map(len, prompts)) * (model.n_layers + max(layers) - 1 + steered)

    def drive_paced(
        self, model: Model, batch: Batch, pace: Callable[[float], None]
    ) -> tuple[Places, Measured]:
        """Layer by layer, from the states below."""
        assert self._answers is not None
        states, by_layer = below(model, batch, self._layers), []
        for number, layer in enumerate(self._layers):
            own = self._direction(layer)
            tried = [own, *(own.shuffled(self.seed + draw) for draw in range(self.draws))]
            start = states.start(layer)
            by_strength = [
                torch.stack(
                    [
                        self._scored(model, batch, start, one.edit(model, s, self.positions))
                        for one in tried
                    ]
                )
                for s in self._strengths
            ]
            by_layer.append(torch.stack(by_strength))
            pace((number + 1) / len(self._layers))
        scores = torch.stack(by_layer)  # [layer, strength, direction, what, prompt]
        clean = self._scored(model, batch, None, None)
        labels = labels_by_prompt(model, batch.prompts, self.feature)
        return batch.places("last"), _named(scores.movedim(-1, 0), clean, torch.tensor(labels))

    def _scored(
        self,
        model: Model,
        batch: Batch,
        start: tuple[int, Tensor] | None,
        edit: Edit | None,
    ) -> Tensor:
        """[3, rows] p_in, p_out and top_in of one pass."""
        assert self._answers is not None
        edits = [] if edit is None else [edit]
        caught = model.intervene(batch, edits, ("logits",), "last", start=start)
        return self._answers.scores(caught["logits", model.n_layers])

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, layer, strength)."""
        from probes.steering.rows import rows

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
        """The panels, which speak of all prompts, under what they are steered towards."""
        from probes.steering.figures import drawn, steered

        layer = None if selected is None else selected[0]
        return drawn(data, cls.panels(data), list(steered(data)), theme, layer, **options)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """Prompts that lack the feature: how probable answers in class become, beside the control."""
        from probes.steering.panels import panels

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
        """Both classes' answers at a layer, for each strength."""
        from probes.steering.panels import facts

        return facts(data, layer)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Probabilities of answers in class along the layers, and a table with intervals."""
        from probes.steering.report import section

        return section(rows)


def _named(scores: Tensor, clean: Tensor, labels: Tensor) -> dict[str, Named]:
    """Of [prompt, layer, strength, direction, what] and [what, prompt]."""
    axes, found = ("place", "layer", "strength"), {"label": Named(("place",), labels, "class")}
    for number, (name, unit) in enumerate(Answers.units.items()):
        one = scores[..., number]
        found[name] = Named(axes, one[..., 0], unit)
        found[f"random_{name}"] = Named((*axes, "draw"), one[..., 1:], unit)
        found[f"clean_{name}"] = Named(("place",), clean[number], unit)
    return found

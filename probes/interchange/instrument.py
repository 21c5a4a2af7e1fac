"""Interchange interventions on a subspace of a site, always beside their controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from probes.interchange.checks import Kind, Metric, require_numbers, require_subspace
from probes.interchange.choices import Coordinates, Given, Means, Rotation
from probes.interchange.direction import Direction
from probes.interchange.headway import Headway, Runs
from probes.interchange.levels import ADDED
from probes.interchange.measure import CONTROLS, TWINS, Subspace, measured
from probes.interchange.pairs import Pairs, paired
from probes.interchange.rotation import Fit
from probes.interchange.state import absent_kind, empty, merged, seen
from workbench.errors import PromptError, SettingError, TargetError, UnsupportedError
from workbench.instrument import Citation, Measured, SetLevel, State
from workbench.models.captures import Captures, Read
from workbench.models.positions import Positions, checked_positions, resolve_positions
from workbench.models.protocol import Model
from workbench.models.sites import expand_sites
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["Interchange"]

SHARE = (0.0, 1.0)

DEFAULT_FIELD = "relation"


@dataclass(frozen=True)
class Interchange(SetLevel):
    """Interchange in a subspace: h_base + (h_source - h_base) B B^T, and what the model then answers.

    Prompts are paired as base and source: of the same `within`, of different groups and targets. The
    base runs with the site's value at its own position changed so; the counterfactual answer is the
    source's target. Groups (a prompt's `group`, else its subject, else itself) are split by `seed`:
    subspaces come from training pairs, every number but train_accuracy from held-out ones, and no
    group stands on both sides. Answers may.

    The orthonormal B [width, k] is
        rotation: fitted so that the interchange gives the counterfactual answer (DAS): Adam on an
            orthogonally parametrised matrix, loss -log p(source's target);
        means: the leading k directions of the differences of class means within a kind (c classes
            of a kind span c - 1), the classes being the targets;
        direction: what is given;
        coordinates: chosen coordinates of the site, such as neurons of mlp_act.

    Beside it stand, by default:
        whole: B = I, the ceiling; unchanged: no change, the floor;
        random: a random subspace of k dimensions (of coordinates: as many others), its change scaled
            pair by pair to the same length; the mean over `draws` of them;
        arbitrary: the same procedure towards other answers in the place of the sources', a fixed
            random rule of the source's answer: a fit that succeeds there shows what fitting can do. Means,
            directions and coordinates are the same subspaces then, and show how far the base's own
            answer is merely broken;
        twin: the same procedure on the model with random weights. It has no knowledge to prefer an
            answer by, so that accuracy is near one half there by chance: compare it with
            twin_unchanged.

    Source: Geiger, Lu, Icard and Potts 2021, arXiv 2106.02997; the fitted rotation: Geiger et al.
    2024, arXiv 2303.02536; why controls are needed: Makelov, Lange and Nanda 2023, arXiv 2311.17030,
    and, of arbitrary targets, Arora, Jurafsky and Potts 2024, arXiv 2402.12560.

    Attributes:
        site: resid_post, resid_pre, resid_mid, attn_out, mlp_out or mlp_act; a rotation is fitted at
            resid_post or mlp_out.
        layers: 0..L (0: the embedding, of resid_post), one, several or "all", which is 1..L.
        positions: a role or index that means one position of a prompt: read in the source, written
            in the base.
        subspace: rotation, means, direction or coordinates.
        k: dimensions of a rotation; the most of means.
        direction: a safetensors file with one tensor [width] or [k, width] (in Python the tensor
            itself).
        coordinates: indices in the site's width, from 0.
        within: the prompts' field whose value base and source share; prompts without it share that.
        pairs: the most of each side of the split; each prompt is base once at most.
        held_out: share of the groups that is held out.
        metric: what a score is: logit_difference (source's target less base's), logprob or
            probability (of the source's target).
        draws: random subspaces.
        twin: whether the model with random weights is measured, too.
        epochs: of a rotation's fit.
        rate: of a rotation's fit: Adam's learning rate.
        seed: of the split, the draws, the fit, the twin and the intervals.

    Result axes: control (subspace, whole, unchanged, random, arbitrary, twin, twin_unchanged), layer,
    pair, unit and direction. Variables (control, layer): accuracy, the share of pairs where the
    counterfactual target beats the base's; top, where it beats all other answers of its kind; score;
    lead, the subspace's accuracy less this one's; each with _low and _high, 95% bootstrap intervals
    over held-out groups, paired (wider than need be where a group is in few pairs); train_accuracy, NaN
    of random. dimensions (layer), k; basis (layer, unit, direction), B; pair_score (control, layer, pair),
    NaN where a pair was not run; pair_base, pair_source, pair_held_out (pair); n,
    n_train, groups.

    >>> Interchange(layers=3, k=32)(model, facts).plot()  # doctest: +SKIP
    """

    site: str = "resid_post"
    layers: str | int | Sequence[int] = "all"
    positions: Positions = "last_subject"
    subspace: Kind = "rotation"
    k: int = 8
    direction: str | Path | Tensor | Direction | None = None
    coordinates: Sequence[int] = ()
    within: str = DEFAULT_FIELD
    pairs: int = 256
    held_out: float = 0.3
    metric: Metric = "logit_difference"
    draws: int = 5
    twin: bool = True
    epochs: int = 6
    rate: float = 0.02
    seed: int = 0

    name: ClassVar[str] = "interchange"
    title: ClassVar[str] = "Interchange"
    needs_weights: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    needs_set: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("direction",)
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {"accuracy": SHARE, "top": SHARE, "train_accuracy": SHARE}
    )
    citation: ClassVar[Citation] = Citation(
        "Interchange interventions on subspaces of {model} (Geiger et al., 2021, 2024; {settings}) were "
        "evaluated on held-out pairs, beside random subspaces, arbitrary targets and a model with random "
        "weights",
        "@inproceedings{geiger2024das,\n"
        "  title     = {Finding Alignments Between Interpretable Causal Variables and Distributed "
        "Neural Representations},\n"
        "  author    = {Geiger, Atticus and Wu, Zhengxuan and Potts, Christopher and Icard, Thomas and "
        "Goodman, Noah},\n"
        "  booktitle = {Causal Learning and Reasoning},\n"
        "  year      = {2024},\n"
        "  note      = {arXiv:2303.02536}\n"
        "}",
    )

    def __post_init__(self) -> None:
        layers = (self.layers,) if type(self.layers) is int else self.layers
        own = (self.coordinates,) if isinstance(self.coordinates, int) else self.coordinates
        for name, value in (("layers", layers), ("coordinates", own)):
            if value != "all" and (isinstance(value, str) or not isinstance(value, Iterable)):
                raise SettingError(f"interchange: {name} is {value!r}: expected whole numbers")
        object.__setattr__(self, "layers", layers if layers == "all" else tuple(layers))  # type: ignore[arg-type]
        object.__setattr__(self, "coordinates", tuple(own))
        object.__setattr__(self, "positions", checked_positions(self.positions))
        object.__setattr__(self, "direction", Direction.of(self.direction))
        require_numbers(self)
        require_subspace(self)

    def settings(self) -> dict[str, Any]:
        """The settings as plain data; a direction as its file and hash."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"direction": None if self.direction is None else str(self.direction)}

    def prepare(self, model: Model) -> None:
        """Refuse models, layers and subspaces that there are not."""
        if not model.causal or len(model.stacks) > 1:
            raise UnsupportedError(
                f"{model.name}: interchange reads the answer after the prompt's last token: expected a "
                "causal model of one stack"
            )
        expand_sites([(self.site, layer) for layer in self._layers(model)], model.n_layers)
        width = self._width(model)
        asked = {
            "k": self.k if self.subspace in ("rotation", "means") else 1,
            "a coordinate": max(self.coordinates, default=0) + 1,
        }
        for name, size in asked.items():
            if size > width:
                raise SettingError(
                    f"interchange: {name} is {size - (name != 'k')}: {self.site} has {width} dimensions"
                )
        if isinstance(self.direction, Direction) and self.direction.rows.shape[1] != width:
            raise SettingError(
                f"interchange: direction {self.direction} has {self.direction.rows.shape[1]} numbers: "
                f"{self.site} has {width}"
            )

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt without a target, or whose `positions` are not one."""
        if prompt.target is None:
            raise TargetError(f"interchange: prompt {prompt.text[:40]!r} has no target: give one")
        found = resolve_positions(self.positions, prompt)
        if len(found) != 1:
            raise PromptError(
                f"interchange: positions {self.positions!r} are {len(found)} in prompt "
                f"{prompt.text[:40]!r}: expected one, such as last_subject or last"
            )

    def _layers(self, model: Model) -> list[int]:
        return list(range(1, model.n_layers + 1)) if self.layers == "all" else sorted(self.layers)  # type: ignore[arg-type]

    def _width(self, model: Model) -> int:
        """Of the site, by a look: it refuses what the model lacks, too."""
        site = self.site, self._layers(model)[0]
        return int(model.capture("a", [site], "last")[site].shape[1])

    def reads(self, model: Model) -> Read:
        """Places alone: no block is run in the common pass."""
        return Read([("resid_post", 0)], self.positions)

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """What is measured, and the layers."""
        return {
            "control": [*CONTROLS, *(TWINS if self.twin else ())],
            "layer": self._layers(model),
        }

    def start(self, model: Model) -> State:
        """Nothing seen."""
        return empty()

    def update(self, state: State, captures: Captures) -> State:
        """One more batch."""
        return merged(state, seen(captures.batch.prompts, captures.places, self.within))

    def merge(self, left: State, right: State) -> State:
        """Both together."""
        return merged(left, right)

    def finish(self, state: State) -> Measured:
        """Not without the model.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError("interchange runs the model itself: measure it on the model")

    def conclude(self, state: State, model: Model) -> Measured:
        """All interchanges.

        Raises:
            PromptError: too few pairs; until here no block has run.
        """
        return self.conclude_paced(state, model, lambda _: None)

    def conclude_paced(self, state: State, model: Model, pace: Callable[[float], None]) -> Measured:
        """The same, saying how far it is."""
        pairs, layers = self._paired(state), self._layers(model)
        return measured(
            model,
            state,
            pairs,
            self._subspace(),
            site=self.site,
            layers=layers,
            metric=self.metric,
            draws=self.draws,
            twin=self.twin,
            seed=self.seed,
            ran=Headway(self._runs(state, pairs).tokens(layers), pace),
        )

    def _runs(self, state: State, pairs: Pairs) -> Runs:
        epochs = self.epochs if self.subspace == "rotation" else 0
        return Runs.of(state["length"], pairs, self.draws, epochs, self.twin)

    def block_tokens(self, model: Model, prompts: Sequence[EncodedPrompt]) -> int:
        """Those of all interchanges and fits, without padding; a backward run counts as a forward."""
        batch = model.batch(prompts)
        state = merged(empty(), seen(prompts, batch.places(self.positions), self.within))
        try:
            pairs = self._paired(state)
        except PromptError:  # which the measurement will say, when it knows all prompts
            return 0
        ahead = 0 if self.site in ADDED else 1
        runs = self._runs(state, pairs)
        return runs.block_tokens(self._layers(model), model.n_layers, ahead)

    def _paired(self, table: Mapping[str, Tensor]) -> Pairs:
        nowhere = bool((table["kind"] == absent_kind()).all())
        if nowhere and self.within != DEFAULT_FIELD:
            raise PromptError(
                f"interchange: no prompt has a field {self.within!r} to be paired within: expected one that "
                "prompts have"
            )
        return paired(
            table, seed=self.seed, share=self.held_out, most=self.pairs, within=self.within
        )

    def _subspace(self) -> Subspace:
        if self.subspace == "rotation":
            return Rotation(self.seed, Fit(self.k, self.epochs, self.rate, self.seed))
        if self.subspace == "means":
            return Means(self.seed, self.k)
        if isinstance(self.direction, Direction):
            return Given(self.seed, self.direction.basis)
        return Coordinates(self.coordinates, self.seed)

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (control, layer); see `probes.interchange.rows`."""
        from probes.interchange.rows import rows

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
        """Accuracies and scores at each layer, the controls grey.

        Args:
            data, theme: as for every instrument.
            prompt: has no meaning here, where a result speaks of all pairs.
            selected: the (layer, position) to mark.
            options: there are none.
        """
        from probes.interchange.figures import figure

        return figure(data, theme=theme, selected=selected, **options)

    @classmethod
    def panels(
        cls,
        data: xr.Dataset,
        *,
        prompt: str | int | None = None,
        position: int | None = None,
        site: str | None = None,
    ) -> Sequence[Panel]:
        """Interchange accuracy and score of the subspace, the whole state and the controls."""
        from probes.interchange.figures import panels

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
        """Accuracy with its interval of each interchange at this layer."""
        from probes.interchange.figures import facts

        return facts(data, layer)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """Figure, the best layer with its lead over each control, and a table."""
        from probes.interchange.report import section

        return section(rows, data)

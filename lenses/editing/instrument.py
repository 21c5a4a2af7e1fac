"""The effect of edits: each prompt's edit, looked at before and after, beside what it is held against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lenses.editing.cases import Case, cases
from lenses.editing.edits import ImprintShift, Scale, require_editable, require_open
from lenses.editing.measure import METHODS, Asked, Edits
from workbench.aim import require_target
from workbench.errors import SettingError
from workbench.instrument import Citation, Driving, Measured, Named
from workbench.models.batch import Batch, Places
from workbench.models.protocol import Model
from workbench.models.tokens import EncodedPrompt

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import polars as pl
    import xarray as xr

    from workbench.figures.panels import Panel
    from workbench.report.sections import Section

__all__ = ["EditEffect"]

CELL = ("place", "layer", "eta", "edit", "case")
UNITS = {"logprob": "nat", "rank": "rank", "id": "token id"}
FOLLOWED = [f"{who}_{{}}_{when}" for who in ("target", "own") for when in ("before", "after")]
RANGES = MappingProxyType(
    {name.format("logprob"): (-math.inf, 0.0) for name in FOLLOWED}
    | {name.format("rank"): (1.0, math.inf) for name in FOLLOWED}
)


@dataclass(frozen=True)
class EditEffect(Driving):
    """Edit each prompt's target in by one forward pass, and look before and after.

    For each prompt, at each layer l and size eta, three changes of the MLP's last map W_l, all of
    the same Frobenius norm eta |x_n| |e|, each made alone and undone exactly:

        imprint_shift: eta x_n^T e (see `lenses.ImprintShift`);
        gradient: one step of gradient descent on -log p(target), -lr sum_i x_i^T delta_i, its lr chosen
            for that norm;
        random: eta x_n^T r, r a random direction as long as e: what any change of that size does.

    They are looked at on the prompt, on its paraphrases, and on its neighbours: other prompts, which
    should stay as they are. These stand in the prompt's fields `paraphrases` (texts) and `neighbours`
    (objects with `text` and `target`); `lenses.counterfactuals` makes such prompts from facts. A
    prompt's foil is what it was answered with before. A target of several tokens has the
    log-probability of all of them and the worst of their ranks.

    A prompt costs one pass over its texts, one over itself, one backward, and three passes a layer
    and eta, which restart below the edited block; prompts are not batched.

    Source: Katz, Belinkov, Geva and Wolf 2024, arXiv 2402.12865 (section 5.3; there alone at layer 35
    of GPT-2 XL, eta .24).

    Attributes:
        layers: 1..L, or "all".
        eta: one or several sizes, none 0. What is best differs by layer and by what is wanted, so
            nothing is chosen here.
        scale: "state": the shift's length over the residual stream's after the block; "raw": the
            paper's eta.
        paraphrases: the most that a prompt may have.
        neighbours: the most that a prompt may have.
        seed: of the random direction.

    Result axes: place (the last of each prompt), layer, eta, edit (the method), case; `kind` says of
    a case what it is. Variables: target_logprob, target_rank, own_logprob, own_rank and top_id, each
    with _before (place, case) and _after (place, layer, eta, edit, case), where own is what the text
    was answered with; target_id, the target's first token (place); raw_eta, the paper's eta of that
    token, and norm, the Frobenius norm (place, layer, eta). NaN and -1 where there is no such case.

    >>> EditEffect(layers=[4])(model, counterfactuals(facts)).plot()  # doctest: +SKIP
    """

    layers: str | Sequence[int] = "all"
    eta: float | Sequence[float] = 1.0
    scale: Scale = "state"
    paraphrases: int = 4
    neighbours: int = 8
    seed: int = 0

    name: ClassVar[str] = "edit"
    title: ClassVar[str] = "Edit"
    long_targets: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True
    costly: ClassVar[bool] = True
    most_prompts: ClassVar[int | None] = 1
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = RANGES
    citation: ClassVar[Citation] = Citation(
        "Answers were edited into {model} by one forward pass (imprint and shift; Katz et al., 2024; "
        "{settings}) and compared with a gradient step and a random change of the same norm",
        "@inproceedings{katz2024backward,\n"
        "  title     = {Backward Lens: Projecting Language Model Gradients into the Vocabulary Space},\n"
        "  author    = {Katz, Shahar and Belinkov, Yonatan and Geva, Mor and Wolf, Lior},\n"
        "  booktitle = {Proceedings of EMNLP},\n"
        "  year      = {2024},\n"
        "  note      = {arXiv:2402.12865}\n"
        "}",
    )

    def __post_init__(self) -> None:
        for field, value in (("eta", self.eta), ("layers", self.layers)):
            if not isinstance(value, int | float | Iterable):
                raise SettingError(f"edit: {field} is {value!r}: expected one or several numbers")
        if type(self.seed) is not int:
            raise SettingError(f"edit: seed is {self.seed!r}: expected a whole number")
        etas = (self.eta,) if isinstance(self.eta, int | float) else tuple(self.eta)
        layers = (self.layers,) if isinstance(self.layers, int) else self.layers
        object.__setattr__(self, "eta", self.eta if isinstance(self.eta, int | float) else etas)
        object.__setattr__(self, "layers", layers if layers == "all" else tuple(layers))
        for field, values in (("eta", etas), ("layers", self.layers)):
            if not values or (len(set(values)) < len(values) and values != "all"):
                raise SettingError(
                    f"edit: {field} is {values!r}: expected distinct values, at least one"
                )
        if bad := [one for one in self.layers if type(one) is not int and self.layers != "all"]:
            raise SettingError(f"edit: layer {bad[0]!r}: expected whole numbers, or all")
        for eta in etas:
            ImprintShift(1, eta, self.scale)
        for field in ("paraphrases", "neighbours"):
            value = getattr(self, field)
            if type(value) is not int or value < 0:
                raise SettingError(
                    f"edit: {field} is {value!r}: expected a whole number, 0 or more"
                )

    def prepare(self, model: Model) -> None:
        """Refuse models and layers that have no MLP map to edit."""
        layers = self._layers(model)
        require_editable(model, layers)
        model.with_changes({})
        if self.scale == "state":
            for layer in layers:
                require_open(model, layer)

    def accept(self, prompt: EncodedPrompt) -> None:
        """Refuse a prompt without a target, or with cases of another form."""
        require_target(prompt)
        self._cases(prompt)

    def coords(self, model: Model) -> Mapping[str, Sequence[Any]]:
        """The layers, sizes, methods and cases, with the kind of each case."""
        kinds = ["prompt", *["paraphrase"] * self.paraphrases, *["neighbour"] * self.neighbours]
        return {
            "layer": self._layers(model),
            "eta": list(self._etas),
            "edit": list(METHODS),
            "case": list(range(len(kinds))),
            "kind": ("case", kinds),
        }

    def drive(self, model: Model, batch: Batch) -> tuple[Places, Measured]:
        """Edit prompt by prompt."""
        found = [self._edited(model, prompt) for prompt in batch.prompts]
        return batch.places("last"), {
            name: Named(_dims(name), torch.stack([one[name] for one in found]), _unit(name))
            for name in found[0]
        }

    def _edited(self, model: Model, prompt: EncodedPrompt) -> dict[str, Tensor]:
        """All that is measured of one prompt: the variables, without the axis place."""
        asked, layers = Asked.of(model, prompt, self._cases(prompt)), self._layers(model)
        states = asked.states(model)
        edits = Edits.of(model, asked.answer, layers, self.seed)
        after: dict[str, list[Tensor]] = {}
        for layer, eta in product(layers, self._etas):
            start = (layer - 1, states[layer - 1])
            for edit in edits.at(layer, eta, self.scale).values():
                with edit.on(model) as edited:
                    for name, values in asked.scored(edited, start).items():
                        after.setdefault(f"{name}_after", []).append(values)
        shape = (len(layers), len(self._etas))
        sizes = [edits.size(*cell, self.scale) for cell in product(layers, self._etas)]
        return {
            "target_id": torch.tensor(asked.answer.tokens[0]),
            **{f"{name}_before": values for name, values in asked.scored(model).items()},
            **{
                name: torch.stack(values).view(*shape, len(METHODS), -1)
                for name, values in after.items()
            },
            **{
                name: torch.tensor(values).view(shape)
                for name, values in zip(("raw_eta", "norm"), zip(*sizes, strict=True), strict=True)
            },
        }

    def _cases(self, prompt: EncodedPrompt) -> list[Case | None]:
        most = {"paraphrase": self.paraphrases, "neighbour": self.neighbours}
        return cases(prompt.text, prompt.prompt.foil, prompt.prompt.extra, most)

    @property
    def _etas(self) -> tuple[float, ...]:
        return self.eta if isinstance(self.eta, tuple) else (float(self.eta),)  # type: ignore[arg-type]

    def _layers(self, model: Model) -> list[int]:
        return list(range(1, model.n_layers + 1)) if self.layers == "all" else list(self.layers)  # type: ignore[arg-type]

    @classmethod
    def rows(cls, data: xr.Dataset) -> Iterator[dict[str, Any]]:
        """One row a (prompt, layer, eta, method, case)."""
        from lenses.editing.rows import rows

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
        """The target's log-probability after edits at each layer, by kind of text; over all prompts.

        Args:
            data, theme: as for every instrument.
            prompt: one prompt's alone; the mean over all where None.
            selected: the (layer, position) to mark.
            options: `eta`, one of those measured; the first where it is not given.
        """
        from lenses.editing.figures import figure

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
        """Log p(target) after an edit at each layer, on the prompt, its paraphrases and neighbours."""
        from lenses.editing.figures import panels

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
        """What each edit at this layer does to the prompt, and how many neighbours keep their answer."""
        from lenses.editing.figures import facts

        return facts(data, layer=layer, prompt=prompt)

    @classmethod
    def section(cls, rows: pl.LazyFrame, data: xr.Dataset | None = None) -> Section:
        """The edit table: success on prompts and paraphrases, neighbours kept, for every method."""
        from lenses.editing.report import section

        return section(rows)


def _dims(name: str) -> tuple[str, ...]:
    if name == "target_id":
        return ("place",)
    if name in ("raw_eta", "norm"):
        return ("place", "layer", "eta")
    return ("place", "case") if name.endswith("_before") else CELL


def _unit(name: str) -> str:
    return next((unit for part, unit in UNITS.items() if f"_{part}" in name), "weight units")
